from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litmus.detectors.calibration import Calibration, calibrate, fit_temperature


def calibration(scores: list[float], members: list[int] | None = None) -> Calibration:
    return Calibration(
        scores=np.array(scores, dtype=np.float64),
        members=np.array(members or [0] * len(scores), dtype=np.int64),
        temperature=2.0,
        scope_limit=1.5,
    )


@pytest.mark.parametrize(
    ("member_scores", "p_value"),
    [
        # Clean: 1 and 5 by member 0; 2 and 6 by member 1.
        ([9.0, 9.0], 1 / 5),
        ([5.0, 9.0], 2 / 5),  # a tie counts against the model
        ([4.0, 9.0], 2 / 5),
        ([9.0, 2.0], 3 / 5),
        ([0.0, 9.0], 3 / 5),
        ([0.0, 0.0], 5 / 5),
    ],
)
def test_p_value_by_hand(member_scores: list[float], p_value: float) -> None:
    known = calibration([1, 2, 5, 6], [0, 1, 0, 1])
    assert known.p_value(member_scores) == pytest.approx(p_value)
    assert known.smallest_p_value == pytest.approx(1 / 5)


@pytest.mark.parametrize("disagreement", [0.0, 0.5])
def test_p_values_of_clean_models_are_valid(disagreement: float) -> None:
    """Of exchangeable models at most a share `a` has a p-value of at most `a`."""
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(2000):
        models = generator.normal(size=41)
        # Five members see the same model, each with an error of its own.
        by_member = models[:, None] + disagreement * generator.normal(size=(41, 5))
        members = np.arange(40) % 5
        clean = by_member[np.arange(40), members]
        p_values.append(calibration(list(clean), list(members)).p_value(list(by_member[40])))
    for level in (0.05, 0.1, 0.25, 0.5):
        standard_error = np.sqrt(level * (1 - level) / len(p_values))
        assert np.mean(np.array(p_values) <= level) <= level + 3 * standard_error
    # Valid, and not by being useless.
    assert np.mean(np.array(p_values) <= 0.25) > 0.2


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=60),
    st.integers(-1, 21),
    st.floats(0.01, 0.9),
)
def test_threshold_and_p_value_agree_for_one_member(
    scores: list[int], score: int, fpr: float
) -> None:
    known = calibration([float(s) for s in scores])
    if fpr < known.smallest_p_value:
        return
    assert (score > known.threshold(fpr)) == (known.p_value([score]) <= fpr)


@pytest.mark.parametrize(("fpr", "threshold"), [(0.05, 95), (0.29, 71), (0.01, 99), (0.001, 99)])
def test_threshold_by_hand(fpr: float, threshold: float) -> None:
    # 99 clean models score 1 to 99; 0.29 * 100 is 28.999999999999996 in floating point.
    assert calibration([float(s) for s in range(1, 100)]).threshold(fpr) == threshold


@pytest.mark.parametrize(
    ("score", "probability"), [(0, 0.5), (2, 1 / (1 + np.exp(-1))), (-1e6, 0), (1e6, 1)]
)
def test_probability_is_a_sigmoid_of_the_scaled_score(score: float, probability: float) -> None:
    assert calibration([0.0]).probability(score) == pytest.approx(probability)


@pytest.mark.parametrize("true_temperature", [0.2, 1.0, 7.0])
def test_the_temperature_is_found_again(true_temperature: float) -> None:
    generator = np.random.default_rng(0)
    log_odds = 2 * generator.normal(size=4000)
    backdoored = generator.random(4000) < 1 / (1 + np.exp(-log_odds))
    found = fit_temperature(true_temperature * log_odds, backdoored)
    assert found == pytest.approx(true_temperature, rel=0.1)


@pytest.mark.parametrize("n", [5, 50])
@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_perfect_separation_stays_modest(n: int, size: float) -> None:
    """Of n + n separated models none gets more than Platt's (n + 1) / (n + 2)."""
    scores = size * np.repeat([-1.0, 1.0], n)
    known = calibrate(scores, np.zeros(2 * n), scores > 0, np.ones(2 * n))
    assert known.probability(size) == pytest.approx((n + 1) / (n + 2), abs=0.01)


def test_calibrate_keeps_the_clean_models_and_the_farthest_distance() -> None:
    known = calibrate([0.1, 2.0, 0.3], [0, 1, 1], [False, True, False], [1.0, 4.0, 2.0])
    assert known.scores.tolist() == [0.1, 0.3]
    assert known.members.tolist() == [0, 1]
    assert known.scope_limit == pytest.approx(1.5 * 4.0)


def test_it_crosses_a_file() -> None:
    known = calibration([1, 2, 5], [0, 1, 0])
    header: dict[str, Any] = json.loads(json.dumps(known.to_json()))
    again = Calibration.from_file(known.arrays(), header)
    assert again.p_value([3, 1]) == known.p_value([3, 1])
    assert (again.temperature, again.scope_limit) == (2.0, 1.5)


def test_the_promise_holds_for_each_population_by_itself() -> None:
    weak = calibration([0.0, 1.0, 2.0, 3.0])
    both = weak.with_population(
        np.array([10.0, 11.0, 12.0]), np.zeros(3, dtype=np.int64), np.array([0.2, 2.0, 0.1])
    )
    assert both.sizes == (4, 3)
    assert both.smallest_p_value == 1 / 4
    assert both.p_value([20.0]) == 1 / 4  # 1 / 5 among the first, 1 / 4 among the others
    assert both.p_value([10.5]) == 3 / 4
    assert both.p_value([2.5]) == 1.0
    assert both.threshold(0.25) == 12.0
    assert both.scope_limit == 3.0
    assert weak.with_population(np.zeros(1), np.zeros(1, np.int64), np.zeros(1)).scope_limit == 1.5


def test_populations_cross_a_file() -> None:
    both = calibration([0.0, 1.0], [0, 1]).with_population(
        np.array([2.0]), np.array([1]), np.array([1.0])
    )
    arrays = both.arrays()
    again = Calibration.from_file(arrays, both.to_json())
    assert again.sizes == (2, 1)
    assert again.p_value([1.0, 3.0]) == both.p_value([1.0, 3.0]) == 1 / 2
    assert "calibration.groups" not in calibration([0.0]).arrays()
    for damaged in ([0, 0], [0, 0, 2], [0, -1, 1], [0.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="population"):
            Calibration.from_file(
                {**arrays, "calibration.groups": np.array(damaged)}, both.to_json()
            )
