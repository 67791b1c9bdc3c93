from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.detectors import DETECTORS, fit
from litmus.detectors.base import Measurement
from litmus.detectors.fused import FusedDetector
from litmus.errors import DetectorError, UnsupportedModelError, UsageError
from litmus.formats import zoo_file
from litmus.metrics import auc
from litmus.models import Images, InputSpec
from litmus.zoo import Zoo


class Blind:
    """A model without a last layer: only its answers can be had."""

    outputs = "logits"

    def __init__(self, model: zoo_file.ZooModel) -> None:
        self._model = model
        self.input_spec: InputSpec = model.input_spec

    def __call__(self, images: Images) -> NDArray[Any]:
        return self._model(images)

    def last_layer(self) -> None:
        raise UnsupportedModelError("no last layer here")


@pytest.fixture(scope="module")
def fused(small_zoo: Zoo) -> FusedDetector:
    detector = fit(small_zoo, "fused", num_patterns=2, epochs=20, seed=1)
    assert isinstance(detector, FusedDetector)
    return detector


@pytest.fixture(scope="module")
def model(small_zoo: Zoo) -> zoo_file.ZooModel:
    return zoo_file.load(small_zoo.split("test")[0].path)


def test_every_set_of_parts_is_combined_and_calibrated(
    fused: FusedDetector, small_zoo: Zoo
) -> None:
    both = ("ulp", "last_layer")
    assert set(fused.combinations) == {("ulp",), ("last_layer",), both}
    clean = sum(not entry.backdoored for entry in small_zoo.split("train"))
    for combination in fused.combinations.values():
        assert len(combination.calibration.scores) == clean
    assert set(fused.held_out["parts"]) == {"ulp", "last_layer", "ulp+last_layer"}
    assert fused.held_out["auc"] == fused.held_out["parts"]["ulp+last_layer"]["auc"]


def test_what_is_fused_is_what_members_said_of_models_they_had_not_seen(
    fused: FusedDetector, small_zoo: Zoo
) -> None:
    heard = fused.unseen
    assert heard is not None
    assert len(heard.entries) == len(small_zoo.split("train"))
    combination = fused.combinations["ulp", "last_layer"]
    for place in (0, 7):
        measured = fused.measure(zoo_file.load(heard.entries[place].path))
        member = heard.members[place]
        assert measured.member_scores[member] == pytest.approx(heard.scores[place], abs=1e-2)
    backdoored = [entry.backdoored for entry in heard.entries]
    np.testing.assert_array_equal(
        np.sort(combination.calibration.scores), np.sort(heard.scores[~np.array(backdoored)])
    )
    assert auc(heard.scores, backdoored) == fused.held_out["auc"]


def test_the_score_is_a_weighted_sum(fused: FusedDetector, model: zoo_file.ZooModel) -> None:
    combination = fused.combinations["ulp", "last_layer"]
    parts = [fused.parts[name].measure(model).member_scores for name in ("ulp", "last_layer")]
    expected = combination.weights @ np.array(parts) + combination.bias
    measurement = fused.measure(model)
    np.testing.assert_allclose(measurement.member_scores, expected)
    assert tuple(measurement.parts) == ("ulp", "last_layer")
    assert "fused from ulp, last_layer" in fused.judge(measurement, fpr=0.2).notes


def test_a_part_that_the_model_does_not_permit_is_left_out_and_named(
    fused: FusedDetector, model: zoo_file.ZooModel
) -> None:
    measurement = fused.measure(Blind(model))  # type: ignore[arg-type]
    assert tuple(measurement.parts) == ("ulp",)
    judgement = fused.judge(measurement, fpr=0.2)
    alone = fused.combinations["ulp",].calibration
    assert judgement.p_value == alone.p_value(measurement.member_scores)
    assert any("without last_layer: no last layer here" in note for note in judgement.notes)
    again = Measurement.from_json(measurement.to_json())
    assert fused.judge(again, fpr=0.2) == judgement


def test_nothing_to_ask_is_unsupported(fused: FusedDetector, model: zoo_file.ZooModel) -> None:
    only = replace(fused, parts={"last_layer": fused.parts["last_layer"]})
    with pytest.raises(UnsupportedModelError, match="no part can measure it"):
        only.measure(Blind(model))  # type: ignore[arg-type]


def test_a_made_up_set_of_parts_is_refused(fused: FusedDetector) -> None:
    made_up = Measurement(member_scores=[0.0] * 5, scope_distance=1.0, parts=("ulp", "luck"))
    with pytest.raises(ValueError, match="luck"):
        fused.calibration_of(made_up.parts)


def test_a_file_holds_all_parts(fused: FusedDetector, model: zoo_file.ZooModel) -> None:
    from litmus.artifacts import parse_tensors

    arrays, header = parse_tensors(fused.to_bytes(), "memory", DetectorError)
    again = DETECTORS["fused"].from_file(arrays, header)
    assert isinstance(again, FusedDetector)
    assert again.measure(model) == fused.measure(model)
    assert again.judge(again.measure(model), fpr=0.2) == fused.judge(fused.measure(model), fpr=0.2)
    assert again.unseen is None


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "part": lambda arrays: arrays.pop("ulp.patterns"),
    "combination": lambda arrays: arrays.pop("ulp.combined.weights"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_named_as_such(what: str, fused: FusedDetector) -> None:
    from litmus.artifacts import parse_tensors

    arrays, header = parse_tensors(fused.to_bytes(), "memory", DetectorError)
    DAMAGE[what](arrays)  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match="malformed"):
        FusedDetector.from_file(arrays, header)


def test_parts_must_be_known(small_zoo: Zoo) -> None:
    for part in ("luck", "fused"):
        with pytest.raises(UsageError, match="unknown part"):
            FusedDetector.fit(small_zoo, parts=["ulp", part])
