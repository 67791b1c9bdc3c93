from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litmus.errors import ModelError, UsageError
from litmus.formats.preprocessing import KEYS, Preprocessing, sidecar_of

IMAGES = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, IMAGES),
        ({"scale": 255}, IMAGES * 255),
        ({"mean": 0.5, "std": 0.25}, (IMAGES - 0.5) / 0.25),
        ({"scale": 255, "mean": 127.5, "std": 127.5}, IMAGES * 2 - 1),
        (
            {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 4]},
            (IMAGES - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape([1, 2, 4], (3, 1, 1)),
        ),
        # The numbers stand in the order of the model's own channels.
        (
            {"scale": 255, "channels": "bgr", "mean": [104, 117, 123]},
            IMAGES[:, ::-1] * 255 - np.reshape([104, 117, 123], (3, 1, 1)),
        ),
    ],
)
def test_the_input_is_image_times_scale_minus_mean_over_std(
    options: dict[str, Any], expected: Any
) -> None:
    applied = Preprocessing.from_table(options, "").apply(IMAGES)
    assert applied.dtype == np.float32
    assert applied.shape == IMAGES.shape
    np.testing.assert_allclose(applied, expected, rtol=1e-5, atol=1e-4)


def test_without_preprocessing_images_stay_bit_identical() -> None:
    assert np.array_equal(Preprocessing().apply(IMAGES), IMAGES)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("scale", "255", "a number above 0"),
        ("scale", 0, "a number above 0"),
        ("scale", True, "a number above 0"),
        ("scale", 10**400, "a number above 0"),
        ("mean", [], "a number, or one a channel"),
        ("mean", [0.5, "x"], "a number, or one a channel"),
        ("mean", float("nan"), "a number, or one a channel"),
        ("std", 0.0, "a number above 0, or one a channel"),
        ("std", [1.0, 0.0, 1.0], "a number above 0, or one a channel"),
        ("layout", "NCWH", "'nchw' or 'nhwc'"),
        ("channels", ["rgb"], "'rgb' or 'bgr'"),
        ("outputs", "scores", "'auto', 'logits' or 'probabilities'"),
        ("classes", "cat", "a list of names"),
        ("classes", [1, 2], "a list of names"),
        ("sclae", 255, "one of scale, mean"),
    ],
)
def test_nonsense_is_named(key: str, value: object, expected: str) -> None:
    with pytest.raises(ModelError) as fault:
        Preprocessing.from_table({key: value}, "m.litmus.toml: ")
    assert f"m.litmus.toml: {key}" in str(fault.value)
    assert expected in str(fault.value)


def test_flags_that_were_not_given_are_not_stated() -> None:
    stated = Preprocessing.from_options(scale=1.0, mean=None, channels="bgr", layout=None)
    assert stated.table() == {"scale": 1.0, "channels": "bgr"}
    with pytest.raises(UsageError, match=r"--std: wrong value .*expected a number above 0"):
        Preprocessing.from_options(std=-1.0)


def test_flags_override_the_sidecar_key_by_key(tmp_path: Path) -> None:
    model = tmp_path / "net.v2.onnx"
    assert sidecar_of(model) == tmp_path / "net.v2.litmus.toml"
    sidecar_of(model).write_text(
        'scale = 255\nmean = [1, 2, 3]\nlayout = "nhwc"\nclasses = ["a", "b"]\n'
    )
    alone = Preprocessing.for_model(model, {})
    assert (alone.scale, alone.mean, alone.layout) == (255.0, (1.0, 2.0, 3.0), "nhwc")
    assert alone.classes == ("a", "b")
    both = Preprocessing.for_model(model, {"scale": 1, "std": 2.0})
    assert (both.scale, both.mean, both.std) == (1.0, (1.0, 2.0, 3.0), 2.0)
    assert both.notes(3) == [
        "assumed: channels rgb",
        "from flags: scale 1, std 2",
        "from net.v2.litmus.toml: mean [1, 2, 3], layout nhwc, classes [a, b]",
    ]


def test_notes_tell_all_that_was_assumed() -> None:
    assert Preprocessing().notes(3) == ["assumed: scale 1, mean 0, std 1, channels rgb"]
    assert Preprocessing().notes(1) == ["assumed: scale 1, mean 0, std 1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"scale = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "not valid TOML"),
        (b"#" * 300_000, "too large"),
        (b"[scale]\nx = 1", "scale: wrong value"),
    ],
)
def test_a_damaged_sidecar_is_a_model_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.litmus.toml").write_bytes(content)
    with pytest.raises(ModelError, match=message) as fault:
        Preprocessing.for_model(tmp_path / "m.onnx", {})
    assert "m.litmus.toml" in str(fault.value)


def test_numbers_that_do_not_fit_the_channels() -> None:
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3))
    preprocessing.check(3, "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: mean does not fit .*1 or 1 numbers, got 3"):
        preprocessing.check(1, "m.onnx")
    with pytest.raises(ModelError, match="bgr needs three channels"):
        Preprocessing(channels="bgr").check(1, "m.onnx")


def test_a_table_survives_json() -> None:
    preprocessing = Preprocessing(scale=255.0, mean=(1.0, 2.0), classes=("a",))
    assert set(preprocessing.table()) == {"scale", "mean", "classes"} <= set(KEYS)
    assert Preprocessing.from_table(preprocessing.table(), "") == preprocessing
