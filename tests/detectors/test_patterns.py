from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.artifacts import encode_tensors, parse_tensors
from litmus.datasets import ImageDataset
from litmus.detectors import (
    DETECTORS,
    InversionDetector,
    Measurement,
    StatisticDetector,
    find_detector,
    fit,
    load_detector,
)
from litmus.detectors.patterns import NoiseDetector, ULPDetector
from litmus.errors import DetectorError, ModelError, UsageError
from litmus.fitting.ensemble import FOLDS, MemberReport
from litmus.formats import zoo_file
from litmus.models import Images, InputSpec, Outputs
from litmus.zoo import Zoo


class Constant:
    """A model that answers the same to everything."""

    outputs: Outputs = "logits"

    def __init__(self, spec: InputSpec, row: list[float]) -> None:
        self.input_spec = spec
        self.row = np.array(row, dtype=np.float32)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        return np.repeat(self.row[None], len(images), axis=0)


@pytest.fixture(scope="module")
def noise_detector(small_zoo: Zoo) -> NoiseDetector:
    return NoiseDetector.fit(small_zoo, num_patterns=4, members=2)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_fits_saves_loads_and_scores_alike(
    name: str, small_zoo: Zoo, digits: ImageDataset, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"num_patterns": 2, "members": 1, "epochs": 2}
    if issubclass(DETECTORS[name], InversionDetector):
        settings = {"images": digits.test, "models": 6, "steps": 5, "images_per_class": 8}
    elif name == "trigger_search":
        settings = {"members": 2, "models": 3, "rungs": [[2, 2]], "finalists": 4}
    elif issubclass(DETECTORS[name], StatisticDetector):
        settings = {"members": 2, **({"steps": 3, "starts": 1} if name == "max_margin" else {})}
    elif name == "fused":
        settings |= {"parts": "ulp+last_layer"}
    detector = fit(small_zoo.path, name, **settings)
    path = tmp_path / "one.litmus"
    path.write_bytes(detector.to_bytes())
    loaded = load_detector(path)
    if isinstance(loaded, InversionDetector):
        loaded = loaded.with_images(digits.test)
    model = zoo_file.load(small_zoo.entries[0].path)
    assert type(loaded) is DETECTORS[name]
    assert loaded.measure(model) == detector.measure(model)
    assert loaded.score(model) == loaded.measure(model).score
    assert loaded.judge(loaded.measure(model), fpr=0.4) == detector.judge(
        detector.measure(model), fpr=0.4
    )
    assert loaded.to_bytes() == detector.to_bytes()
    assert loaded.scope["seed"] == 0


def test_ulp_tells_unseen_triggers_and_says_what_it_was_fitted_on(
    small_zoo: Zoo, small_detector: ULPDetector
) -> None:
    scores = {True: [], False: []}  # type: dict[bool, list[float]]
    for entry in small_zoo.split("test"):
        scores[entry.backdoored].append(small_detector.score(zoo_file.load(entry.path)))
    wins = np.mean(np.array(scores[True])[:, None] > np.array(scores[False])[None])
    assert wins > 0.8
    test_triggers = {entry.trigger_id for entry in small_zoo.split("test")}
    assert not test_triggers & set(small_detector.scope["triggers"])
    assert small_detector.scope["dataset"] == "digits"
    assert small_detector.held_out["n_clean"] == len(small_zoo.split("train")) // 2


def test_every_clean_training_model_calibrates_once_by_a_member_that_never_saw_it(
    small_zoo: Zoo, small_detector: ULPDetector
) -> None:
    calibration = small_detector.calibration
    clean = [e for e in small_zoo.split("train") if not e.backdoored]
    assert len(calibration.scores) == len(clean)
    assert sorted(set(calibration.members.tolist())) == list(range(FOLDS))
    own = np.array(
        [small_detector.measure(zoo_file.load(entry.path)).member_scores for entry in clean]
    )
    for score, member in zip(calibration.scores, calibration.members, strict=True):
        # BatchNorm was folded in fitting and is not here, which moves the last digits.
        assert np.isclose(own[:, member], score, atol=1e-3).any()


def test_a_fit_does_not_depend_on_how_many_members_run(small_zoo: Zoo) -> None:
    one, two = (
        ULPDetector.fit(small_zoo, num_patterns=2, members=n, epochs=3, seed=5) for n in (1, 2)
    )
    np.testing.assert_array_equal(one.members[0].patterns, two.members[0].patterns)
    assert not np.array_equal(two.members[0].patterns, two.members[1].patterns)


def test_a_fit_reports_its_progress(small_zoo: Zoo) -> None:
    reports: list[MemberReport] = []
    ULPDetector.fit(small_zoo, num_patterns=1, members=2, epochs=3, on_progress=reports.append)
    assert sorted((r.member, r.epoch.epoch) for r in reports) == [
        (member, epoch) for member in (0, 1) for epoch in (1, 2, 3)
    ]


def test_noise_patterns_differ_between_members(noise_detector: NoiseDetector) -> None:
    assert noise_detector.queries.shape == (8, 1, 28, 28)
    first, second = noise_detector.members
    assert not np.array_equal(first.patterns, second.patterns)


def test_a_model_unlike_any_other_is_inconclusive(small_detector: ULPDetector) -> None:
    strange = Constant(small_detector.input_spec, [300.0] + [0.0] * 9)
    judgement = small_detector.judge(small_detector.measure(strange), fpr=0.1)
    assert judgement.verdict == "inconclusive"
    assert "unlike any" in judgement.notes[0]


def test_the_verdict_follows_the_p_value(small_detector: ULPDetector) -> None:
    quiet = Measurement(member_scores=[-1e9] * FOLDS, scope_distance=1.0)
    loud = Measurement(member_scores=[1e9] * FOLDS, scope_distance=1.0)
    low = small_detector.calibration.smallest_p_value
    assert small_detector.judge(loud, fpr=low).verdict == "suspicious"
    assert small_detector.judge(loud, fpr=low).p_value == pytest.approx(low)
    assert small_detector.judge(quiet, fpr=0.99).verdict == "no evidence found"
    assert small_detector.judge(quiet, fpr=0.99).p_value == 1


def test_a_false_positive_rate_that_can_not_be_promised_names_n(
    small_detector: ULPDetector,
) -> None:
    with pytest.raises(UsageError, match="n = 12"):
        small_detector.check_fpr(0.01)


def test_infinite_outputs_are_an_error_and_not_a_score(small_detector: ULPDetector) -> None:
    with pytest.raises(ModelError, match="not numbers"):
        small_detector.score(Constant(small_detector.input_spec, [float("inf")] + [0.0] * 9))


def test_raw_logits_are_refused_where_only_probabilities_are_to_be_had(
    small_detector: ULPDetector,
) -> None:
    detector = replace(small_detector, features="logits")
    model = Constant(detector.input_spec, [0.1] * 10)
    detector.score(model)
    model.outputs = "probabilities"
    with pytest.raises(ModelError, match="raw logits"):
        detector.score(model)


def _truncated(content: bytes) -> bytes:
    return content[:-100]


def _flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def _other_format(content: bytes) -> bytes:
    arrays, header = parse_tensors(content, "x", DetectorError)
    return encode_tensors(arrays, header | {"format": "something"})


def _no_head(content: bytes) -> bytes:
    arrays, header = parse_tensors(content, "x", DetectorError)
    del arrays["weight"]
    return encode_tensors(arrays, header)


def _other_shape(content: bytes) -> bytes:
    arrays, header = parse_tensors(content, "x", DetectorError)
    arrays["patterns"] = arrays["patterns"][..., :20]
    return encode_tensors(arrays, header)


@pytest.mark.parametrize(
    "damage", [_truncated, _flipped, _other_format, _no_head, _other_shape, lambda content: b""]
)
def test_damaged_detectors_are_refused_by_name(
    damage: Callable[[bytes], bytes], small_detector_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.litmus"
    path.write_bytes(damage(small_detector_file.read_bytes()))
    with pytest.raises(DetectorError, match=r"damaged\.litmus"):
        load_detector(path)


def test_an_unknown_detector_names_the_bundled_ones() -> None:
    with pytest.raises(DetectorError, match=r"digits.*nowhere"):
        find_detector("nowhere")
    with pytest.raises(UsageError, match="ulp"):
        fit("zoo", "magic")
