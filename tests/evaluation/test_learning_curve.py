from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from litmus.detectors import fit
from litmus.detectors.attack_based import AttackBasedDetector
from litmus.detectors.learning_curve import CurvePoint, LearningCurve, Trend
from litmus.errors import DetectorError, UsageError
from litmus.evaluation import learning_curve, learning_shares
from litmus.metrics import PairedDifference, auc
from litmus.reports.learning_curve import advice, learning_curve_text
from litmus.zoo import Zoo

QUICK: dict[str, dict[str, Any]] = {
    "ulp": {"num_patterns": 2, "epochs": 3, "members": 2},
    "last_layer": {"members": 3, "models": 8},
    "fused": {"parts": "ulp+last_layer", "num_patterns": 2, "epochs": 3, "members": 2},
}


@pytest.mark.parametrize(
    ("num_models", "shares"),
    [
        (47, ()),
        (48, (0.5,)),
        (230, (0.125, 0.25, 0.5)),
        (100_000, (0.0625, 0.125, 0.25, 0.5)),
    ],
)
def test_parts_are_halves_of_halves_and_together_less_than_the_whole(
    num_models: int, shares: tuple[float, ...]
) -> None:
    assert learning_shares(num_models) == shares
    assert sum(shares) < 1


@pytest.mark.parametrize("name", QUICK)
def test_a_detector_that_learns_again_from_all_says_the_same(name: str, small_zoo: Zoo) -> None:
    detector = fit(small_zoo, name, seed=3, **QUICK[name])
    half, whole = detector.relearn(small_zoo, [0.5, 1.0])
    assert detector.unseen is not None
    np.testing.assert_allclose(whole.scores, detector.unseen.scores)
    assert [e.id for e in half.entries] == [e.id for e in whole.entries]
    assert not np.allclose(half.scores, whole.scores)


def test_the_curve_ends_with_the_detector_itself(small_zoo: Zoo) -> None:
    detector = fit(small_zoo, "last_layer")
    curve = learning_curve(small_zoo, detector, (0.5,))
    first, last = curve.points
    assert (first.num_models, last.num_models) == (12, 24)
    assert last.auc == detector.held_out["auc"]
    assert (last.auc_low, last.auc_high) == (
        detector.held_out["auc_low"],
        detector.held_out["auc_high"],
    )
    (half,) = detector.relearn(small_zoo, [0.5])
    assert first.auc == auc(half.scores, half.backdoored)
    assert curve.last_doubling.difference == pytest.approx(last.auc - first.auc)
    assert (curve.n_clean, curve.n_backdoored) == (12, 12)


def test_where_there_is_no_curve(small_zoo: Zoo) -> None:
    fitted = fit(small_zoo, "last_layer")
    with pytest.raises(UsageError, match="48 models or more, got 24 models"):
        learning_curve(small_zoo, fitted, learning_shares(24))
    with pytest.raises(UsageError, match="just fitted"):
        learning_curve(small_zoo, replace(fitted, unseen=None), (0.5,))
    inverting = AttackBasedDetector.uncalibrated(small_zoo.input_spec)
    with pytest.raises(UsageError, match="learns nothing"):
        list(inverting.relearn(small_zoo, [0.5]))


def curve(
    aucs: list[float], *, last: tuple[float, float, float], width: float = 0.05
) -> LearningCurve:
    """A curve from 50 models on, each point with twice as many; `last` is the last doubling."""
    return LearningCurve(
        points=tuple(
            CurvePoint(
                num_models=50 * 2**i,
                auc=value,
                auc_low=value - width,
                auc_high=min(1.0, value + width),
                interval="bootstrap",
            )
            for i, value in enumerate(aucs)
        ),
        last_doubling=PairedDifference(difference=last[0], low=last[1], high=last[2], p_value=0.5),
        n_clean=100,
        n_backdoored=100,
    )


CASES: list[tuple[LearningCurve, Trend, str]] = [
    (curve([0.6, 0.7, 0.8], last=(0.1, 0.05, 0.15)), "rising", "More models are likely to help"),
    (curve([0.8, 0.85, 0.85], last=(0.0, -0.01, 0.01)), "flat", "unlikely to help"),
    (curve([0.8, 0.85, 0.87], last=(0.02, -0.03, 0.07)), "unclear", "from luck"),
    (curve([0.5, 0.51, 0.52], last=(0.01, -0.05, 0.07)), "chance", "Not better than chance"),
    (curve([0.9, 0.99, 1.0], last=(0.01, 0.0, 0.02)), "saturated", "Nothing left to gain"),
    # Just above chance, and clearly on its way.
    (curve([0.45, 0.48, 0.54], last=(0.06, 0.01, 0.11)), "rising", "More models are likely"),
]


@pytest.mark.parametrize(("made", "trend", "says"), CASES)
def test_the_advice_follows_from_the_intervals(
    made: LearningCurve, trend: Trend, says: str
) -> None:
    assert made.trend == trend
    text = advice(made)
    assert says in text
    if trend == "saturated":
        assert "AUC 1.000 (0.950 to 1.000)" in text
    else:
        assert "from 100 to 200 models the AUC changed by" in text
    assert text.endswith("litmus evaluate --leave-out architecture measures.")


def test_how_many_models_halve_the_error_is_exact_for_a_power_law() -> None:
    # Each doubling leaves 0.8 of the error, so log 2 / log 1.25 doublings halve it.
    law = curve([1 - 0.4 * 0.8**i for i in range(3)], last=(0.06, 0.02, 0.1))
    assert law.models_for_half_the_error() == pytest.approx(200 * 2 ** (np.log(2) / np.log(1.25)))
    assert "slowly" in advice(law)
    steep = curve([0.6, 0.8, 0.9], last=(0.1, 0.05, 0.15))
    assert steep.models_for_half_the_error() == pytest.approx(400)
    assert "about 400 models would halve it" in advice(steep)
    falling = curve([0.9, 0.8, 0.7], last=(-0.1, -0.2, -0.05))
    assert falling.models_for_half_the_error() == np.inf


def test_the_text_has_every_point(small_zoo: Zoo) -> None:
    text = learning_curve_text(curve([0.5, 0.75, 1.0], last=(0.25, 0.1, 0.4)))
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["50", "100", "200"]
    assert [line.count("#") for line in text.splitlines()[2:5]] == [0, 20, 40]


def test_a_curve_goes_into_a_header_and_comes_back() -> None:
    made = curve([0.6, 0.7, 0.8], last=(0.1, 0.05, 0.15))
    assert LearningCurve.of({"learning_curve": made.to_json()}) == made
    assert LearningCurve.of({"auc": 1.0}) is None
    damages: list[dict[str, Any]] = [
        {"points": [{"auc": 1}]},
        {"points": 3},
        {"last_doubling": {}},
    ]
    for damage in damages:
        with pytest.raises(DetectorError, match="malformed learning curve"):
            LearningCurve.of({"learning_curve": {**made.to_json(), **damage}})
