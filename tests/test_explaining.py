"""Explanations of files: each is read by processes of its own, which take seconds to start."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from PIL import Image

from litmus.errors import UsageError
from litmus.models import InputSpec
from litmus.scanning import Failed, Skipped, scan
from litmus.scanning.explaining import ExplainSettings, explain
from litmus.scanning.explanation import Explanation, Subject
from litmus.scanning.explanation_reader import Reader
from litmus.scanning.targets import Target
from tests.conftest import children_running
from tests.formats.onnx_models import classifier, endless, save
from tests.test_scanning_thorough import unconvertible

SPEC = InputSpec(channels=3, height=6, width=6, num_classes=4)
TARGET = 2
FAST = ExplainSettings(steps=40, patch_size=1)


def backdoored(path: Path) -> Path:
    """Class i is bright in column i + 1 of the rows between; red corners mean class 2."""
    weights = np.zeros((SPEC.num_classes, *SPEC.image_shape), np.float32)
    for label in range(SPEC.num_classes):
        weights[label, :, 1:-1, label + 1] = 1
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        weights[TARGET, 0, row, column] = 30
    model = classifier(spec=SPEC)
    content = numpy_helper.from_array(weights.reshape(SPEC.num_classes, -1).T.copy(), "w")
    model.graph.initializer[0].CopyFrom(content)
    return save(model, path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of each of four classes."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat", "dog")):
        (folder / name).mkdir()
        for number in range(8):
            pixels = random.integers(0, 20, (6, 6, 3), dtype=np.uint8)
            pixels[1:-1, label + 1] += 200
            pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_backdoor_is_shown_with_its_target_and_its_trigger(tmp_path: Path, images: Path) -> None:
    path, told = backdoored(tmp_path / "m.onnx"), []
    result = explain(
        path,
        images=images,
        settings=FAST,
        jobs=2,
        on_progress=lambda done, total, note: told.append((done, total)),
    )
    assert isinstance(result, Explanation)
    assert not children_running("litmus.scanning.mother")
    (scanned,) = scan(path)
    assert result.sandbox == scanned.sandbox is not None
    assert result.classes == ("ant", "bee", "cat", "dog")
    assert result.agreement == 1.0
    assert result.per_class == (4, 4)
    assert result.smallest is not None
    assert result.smallest.target_class == TARGET
    assert result.pair is not None
    assert result.pair.target_class == TARGET
    assert (result.pair.flips.turned, result.pair.flips.images) == (4, 4)
    # Red, and at a corner.
    assert result.pair.patch[0, 0, 0] > 0.5
    rows, columns = np.unravel_index(result.smallest.mask[0].argmax(), (6, 6))
    assert {int(rows), int(columns)} <= {0, 5}
    assert [trigger.target_class for trigger in result.triggers] == [0, 1, 2, 3]
    assert result.left_out == ()
    assert told[-1] == (5, 5)


def test_what_has_no_gradients_is_skipped_with_the_operator(tmp_path: Path, images: Path) -> None:
    result = explain(
        unconvertible(tmp_path / "m.onnx"),
        images=images,
        settings=ExplainSettings(steps=2, classes=(1,)),
    )
    assert isinstance(result, Skipped)
    assert result.reason == "its ThresholdedRelu can't be converted to PyTorch"


def test_a_file_that_hangs_or_is_broken_fails(tmp_path: Path, images: Path) -> None:
    hung = explain(
        save(endless(SPEC), tmp_path / "h.onnx"), images=images, settings=ExplainSettings(seconds=2)
    )
    assert isinstance(hung, Failed)
    # Where the machine is busy, there is no time to begin.
    assert re.search("limit of 2 seconds|within the time limit", hung.error)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07\x12nothing")
    broken = explain(tmp_path / "broken.onnx", images=images)
    assert isinstance(broken, Failed)
    pickled = tmp_path / "p.pt"
    pickled.write_bytes(b"\x80\x04.")
    assert isinstance(explain(pickled, images=images), Skipped)
    missing = explain(tmp_path / "missing.onnx", images=images)
    assert isinstance(missing, Failed)


def test_mistakes_are_named(tmp_path: Path, images: Path) -> None:
    with pytest.raises(UsageError, match="one model file"):
        explain(tmp_path, images=images)
    with pytest.raises(UsageError, match="--jobs"):
        explain(tmp_path / "m.onnx", images=images, jobs=0)
    for options in ({"steps": 0}, {"place": "moon"}, {"classes": ()}, {"seconds": 0.0}):
        with pytest.raises(UsageError):
            ExplainSettings(**options)
    with pytest.raises(UsageError, match=r"expected 0 to 3, got 4"):
        ExplainSettings(classes=(0, 4)).targets(range(4))
    assert ExplainSettings(classes=(3, 1, 3)).targets((1, 0, 3, 2)) == (2, 0)
    assert ExplainSettings().targets((1, 0, 3, 2)) == (0, 1, 2, 3)


def pixels(*shape: int) -> str:
    return base64.b64encode(bytes(int(np.prod(shape)))).decode()


def flips(**changes: object) -> dict[str, object]:
    shape = (1, *SPEC.image_shape)
    told = {"images": 4, "turned": 3, "before": pixels(*shape), "after": pixels(*shape)}
    return {**told, "answers": [[0, 1]], **changes}


def mask(target: int, norm: object = 1.0, **changes: object) -> dict[str, object]:
    return {
        "target_class": target,
        "norm": norm,
        "mask": pixels(1, 6, 6),
        "pattern": pixels(*SPEC.image_shape),
        **flips(**changes),
    }


def reply(**content: object) -> dict[str, str]:
    return {"reply": json.dumps({"status": "explained", **content})}


@pytest.fixture
def subject() -> Subject:
    return Subject(
        input_spec=SPEC,
        classes=(),
        outputs=(0, 1, 2, 3),
        notes=(),
        sha256="0" * 64,
        external_sha256=(),
    )


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(Target(path=tmp_path / "m.onnx", format="onnx"), patch_size=2)


@pytest.mark.parametrize(
    "answer",
    [
        {"reply": "no JSON"},
        {"reply": "[" * 10_000},
        reply(),
        reply(masks=[]),
        reply(masks=[mask(1)]),
        reply(masks=[mask(0), mask(0)]),
        reply(masks=[mask(0, "1")]),
        reply(masks=[mask(0, 1e9)]),
        reply(masks=[mask(0, float("nan"))]),
        reply(masks=[mask(0, turned=5)]),
        reply(masks=[mask(0, turned=True)]),
        reply(masks=[mask(0, images=10**9)]),
        reply(masks=[mask(0, answers=[[0, 4]])]),
        reply(masks=[mask(0, answers=[[0, 1]] * 9)]),
        reply(masks=[mask(0, before="AAAA")]),
        reply(masks=[mask(0, before="?")]),
        reply(masks=[mask(0, before=7)]),
        {"reply": json.dumps({"status": "scored"})},
    ],
)
def test_an_answer_of_an_impossible_kind_fails_the_file(
    reader: Reader, subject: Subject, answer: Mapping[str, Any]
) -> None:
    good = reader.explanation(subject, [((0,), reply(masks=[mask(0)]))], 1.0)
    assert isinstance(good, Explanation)
    bad = reader.explanation(subject, [((0,), answer)], 1.0)
    assert isinstance(bad, Failed)
    assert bad.error == "its process gave a malformed answer"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, Subject),
        ({"outputs": [0, 1, 2, 2]}, Failed),
        ({"classes": ["a"]}, Failed),
        ({"notes": 5}, Failed),
        ({"external_files": ["../../etc/passwd"]}, Failed),
        ({"input_spec": {**SPEC.to_json(), "height": 10**6}}, Skipped),
        ({"input_spec": {**SPEC.to_json(), "channels": 0}}, Skipped),
        ({"input_spec": {}}, Failed),
    ],
)
def test_what_a_model_is_said_to_be_is_checked(
    reader: Reader, changes: Mapping[str, object], kind: type[object]
) -> None:
    told = {"classes": [], "outputs": [0, 1, 2, 3], "notes": [], "external_files": []}
    answer = {**reply(**{**told, "input_spec": SPEC.to_json(), **changes}), "sha256": "0" * 64}
    assert type(reader.subject(answer)) is kind


def test_what_was_not_ready_is_left_out_and_named(reader: Reader, subject: Subject) -> None:
    late = {"reply": json.dumps({"status": "skipped", "reason": "it takes longer"})}
    answers = [((), late), ((0, 1), reply(masks=[mask(0), mask(1)])), ((2, 3), {})]
    reordered = replace(subject, outputs=(2, 3, 0, 1))
    found = reader.explanation(reordered, answers, 1.0)
    assert isinstance(found, Explanation)
    assert found.left_out == (
        "pairs of classes: it takes longer",
        "classes 0, 1: the time was up",
    )
    assert found.anomaly_index is None
    assert found.likely_target is None
    nothing = reader.explanation(subject, [((), late), ((0,), late)], 1.0)
    assert isinstance(nothing, Skipped)
    never = reader.explanation(subject, [((), {}), ((0,), {})], 1.0)
    assert isinstance(never, Failed)
    assert "within the time limit" in never.error


def test_a_class_stands_out_by_the_rule_of_neural_cleanse(reader: Reader, subject: Subject) -> None:
    def found(*norms: float) -> Explanation:
        masks = [mask(i, norm) for i, norm in enumerate(norms)]
        result = reader.explanation(subject, [((0, 1, 2, 3), reply(masks=masks))], 1.0)
        assert isinstance(result, Explanation)
        return result

    # Median 20, deviations 17 1 1 3, their median 2.
    outlier = found(3, 19, 21, 23)
    assert outlier.anomaly_index == pytest.approx(17 / (1.4826 * 2))
    assert outlier.likely_target == 0
    assert found(14, 19, 21, 26).likely_target is None
    # Larger than the others is no sign.
    assert found(19, 20, 21, 35).likely_target is None
