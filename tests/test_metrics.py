from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control, norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from litmus.metrics import (
    accuracy,
    auc,
    auc_interval,
    benjamini_hochberg,
    binomial_interval,
    expected_calibration_error,
    mean_auc_interval,
    paired_auc_difference,
    roc_curve,
    tpr_at_fpr,
)

# Few distinct values, so that ties are common.
SCORES = st.integers(-3, 3) | st.floats(-1e6, 1e6)
LABELLED = (
    st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=40)
    .filter(lambda rows: len({bad for _, bad in rows}) == 2)
    .map(lambda rows: (np.array([s for s, _ in rows], float), np.array([b for _, b in rows])))
)
Labelled = tuple[NDArray[np.float64], NDArray[np.bool_]]


def drawn(
    n_clean: int, n_bad: int, *, shift: float, seed: int, spread: float = 0.0
) -> tuple[Any, Any, Any]:
    """Scores, backdoored, triggers: normal scores, `spread` between five triggers' means."""
    generator = np.random.default_rng(seed)
    triggers = np.arange(n_bad) % 5
    bad = shift + spread * generator.normal(size=5)[triggers] + generator.normal(size=n_bad)
    scores = np.concatenate([generator.normal(size=n_clean), bad])
    backdoored = np.arange(n_clean + n_bad) >= n_clean
    return scores, backdoored, np.concatenate([np.full(n_clean, -1), triggers])


@given(LABELLED)
def test_auc_is_that_of_scikit_learn(rows: Labelled) -> None:
    scores, backdoored = rows
    assert auc(scores, backdoored) == pytest.approx(roc_auc_score(backdoored, scores))
    assert auc(-scores, backdoored) == pytest.approx(1 - auc(scores, backdoored))


@given(LABELLED)
def test_the_roc_curve_rises_from_corner_to_corner_over_the_auc(rows: Labelled) -> None:
    scores, backdoored = rows
    fpr, tpr = roc_curve(scores, backdoored)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(scores, backdoored))
    theirs = sklearn_roc_curve(backdoored, scores, drop_intermediate=False)
    np.testing.assert_allclose([fpr, tpr], theirs[:2])


def test_several_seeds_give_their_mean() -> None:
    one, backdoored, triggers = drawn(30, 20, shift=1, seed=0)
    two, _, _ = drawn(30, 20, shift=1, seed=1)
    mean = (auc(one, backdoored) + auc(two, backdoored)) / 2
    assert auc([one, two], backdoored) == pytest.approx(mean)
    both = auc_interval([one, two], backdoored, triggers)
    assert both.low < mean < both.high


@pytest.mark.parametrize("measure", [auc, roc_curve, lambda s, b: tpr_at_fpr(s, b, 0.05)])
@pytest.mark.parametrize(
    ("scores", "backdoored", "message"),
    [
        ([1.0, 2.0], [True, True], "both clean and backdoored"),
        ([1.0, 2.0], [False, False], "both clean and backdoored"),
        ([1.0, 2.0, 3.0], [False, True], "one row each"),
        ([np.nan, 2.0], [False, True], "NaN"),
    ],
)
def test_what_can_not_be_measured_is_an_error(
    measure: Callable[..., object], scores: list[float], backdoored: list[bool], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(scores, backdoored)


@pytest.mark.parametrize(
    ("n_clean", "fpr", "known"),
    [
        (99, 0.01, False),
        (100, 0.01, True),
        (19, 0.05, False),
        (20, 0.05, True),
        (9, 0.1, False),
        (10, 0.1, True),
    ],
)
def test_a_small_rate_needs_enough_clean_models(n_clean: int, fpr: float, known: bool) -> None:
    scores = [*range(n_clean), n_clean - 1.5, n_clean, n_clean + 1]
    backdoored = [False] * n_clean + [True] * 3
    # One clean model in n may be flagged, so the one below it counts as well.
    expected = 1.0 if known else None
    assert tpr_at_fpr(scores, backdoored, fpr) == expected


def test_tpr_at_fpr_by_hand() -> None:
    clean = [*range(100)]
    bad = [200.0, 98.5, 97.5, 95.0, 0.0]
    backdoored = [False] * 100 + [True] * 5
    assert tpr_at_fpr(clean + bad, backdoored, 0.01) == pytest.approx(2 / 5)
    assert tpr_at_fpr(clean + bad, backdoored, 0.05) == pytest.approx(4 / 5)


def test_a_tie_at_the_threshold_flags_the_clean_ones_too() -> None:
    scores = [0.0] * 90 + [1.0] * 10 + [1.0] * 5
    assert tpr_at_fpr(scores, [False] * 100 + [True] * 5, 0.05) == 0


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0.75), (2.0, 0.75), (0.5, 1.0)])
def test_accuracy_counts_the_right_side(threshold: float, expected: float) -> None:
    assert accuracy([-1, 0.5, 1, 3], [False, False, True, True], threshold) == expected


@pytest.mark.parametrize(("n_clean", "n_bad"), [(1, 1), (40, 80), (80, 40)])
def test_at_auc_1_the_interval_is_the_exact_binomial_bound(n_clean: int, n_bad: int) -> None:
    scores = np.arange(n_clean + n_bad)
    interval = auc_interval(scores, scores >= n_clean, scores % 3)
    assert interval.method == "exact binomial"
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.025 ** (1 / min(n_clean, n_bad)))
    opposite = auc_interval(-scores, scores >= n_clean, scores % 3)
    assert (opposite.method, opposite.low) == ("exact binomial", 0.0)
    assert opposite.high == pytest.approx(1 - interval.low)


def test_within_strata_models_of_others_are_not_compared() -> None:
    # Perfect in each stratum; the second one's scores all lie above the first one's.
    scores = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    backdoored = [False, False, True, False, True]
    strata = ["a", "a", "a", "b", "b"]
    assert auc(scores, backdoored) == pytest.approx(5 / 6)
    assert auc(scores, backdoored, strata) == 1.0
    interval = auc_interval(scores, backdoored, scores, strata=strata)
    assert interval.low == pytest.approx(0.025 ** (1 / 2))  # one pair a stratum
    # Each backdoored model counts once, however many clean ones its stratum has.
    worse = np.where(np.array(strata) == "b", -scores, scores)
    assert auc(worse, backdoored, strata) == pytest.approx(1 / 2)
    assert auc([scores, worse], backdoored, strata) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="in every stratum"):
        auc(scores, backdoored, ["a", "a", "a", "a", "b"])


def test_one_stratum_is_none() -> None:
    scores, backdoored, triggers = drawn(30, 20, shift=1, seed=0)
    everywhere = np.zeros(50)
    assert auc(scores, backdoored, everywhere) == pytest.approx(auc(scores, backdoored))
    plain = auc_interval(scores, backdoored, triggers)
    assert auc_interval(scores, backdoored, triggers, strata=everywhere) == plain


def test_strata_are_resampled_by_themselves() -> None:
    scores, backdoored, triggers = drawn(60, 60, shift=1, seed=0)
    strata = np.arange(120) % 3
    interval = auc_interval(scores, backdoored, triggers, strata=strata)
    assert interval.low < auc(scores, backdoored, strata) < interval.high
    assert 0.1 < interval.high - interval.low < 0.25
    shifted = scores + 100 * strata  # what lies between strata is of no account
    assert auc_interval(shifted, backdoored, triggers, strata=strata) == interval


def test_the_bootstrap_interval_covers_the_truth() -> None:
    truth = norm.cdf(1 / np.sqrt(2))
    intervals = [auc_interval(*drawn(60, 60, shift=1, seed=seed)) for seed in range(8)]
    assert all(i.method == "bootstrap over triggers and models" for i in intervals)
    assert sum(i.low <= truth <= i.high for i in intervals) >= 7
    # The standard error of an AUC of 0.76 on 60 + 60 is 0.044.
    widths = [i.high - i.low for i in intervals]
    assert 0.1 < np.mean(widths) < 0.25


def test_triggers_that_differ_widen_the_interval() -> None:
    scores, backdoored, triggers = drawn(60, 60, shift=1, seed=3, spread=2.0)
    by_trigger = auc_interval(scores, backdoored, triggers)
    as_one = auc_interval(scores, backdoored, np.zeros_like(triggers))
    assert by_trigger.high - by_trigger.low > 1.5 * (as_one.high - as_one.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = drawn(20, 20, shift=1, seed=0)
    assert auc_interval(*rows, seed=5) == auc_interval(*rows, seed=5)
    assert auc_interval(*rows, seed=5) != auc_interval(*rows, seed=6)


def test_the_paired_difference_is_antisymmetric() -> None:
    first, backdoored, triggers = drawn(40, 40, shift=1.5, seed=0)
    second = first + np.random.default_rng(1).normal(size=80)
    there = paired_auc_difference(first, second, backdoored, triggers)
    back = paired_auc_difference(second, first, backdoored, triggers)
    assert there.difference == pytest.approx(auc(first, backdoored) - auc(second, backdoored))
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value == there.p_value
    assert there.low < there.difference < there.high


def test_a_detector_against_itself_and_against_chance() -> None:
    scores, backdoored, triggers = drawn(40, 40, shift=3, seed=0)
    itself = paired_auc_difference(scores, scores, backdoored, triggers)
    assert (itself.difference, itself.low, itself.high, itself.p_value) == (0, 0, 0, 1)
    chance = np.random.default_rng(2).normal(size=80)
    better = paired_auc_difference(scores, chance, backdoored, triggers)
    assert better.low > 0.2
    assert 0 < better.p_value < 0.01


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_binomial_interval_is_that_of_scipy(counts: tuple[int, int]) -> None:
    exact = binomtest(*counts).proportion_ci(0.95, method="exact")
    assert binomial_interval(*counts) == pytest.approx((exact.low, exact.high))


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p_values: list[float]) -> None:
    q_values = benjamini_hochberg(p_values)
    np.testing.assert_allclose(q_values, false_discovery_control(p_values, method="bh"))
    assert (q_values >= np.array(p_values) - 1e-15).all()


@pytest.mark.parametrize(
    ("probabilities", "backdoored", "expected"),
    [
        ([0.0, 1.0], [False, True], 0.0),
        ([1.0, 0.0], [False, True], 1.0),
        ([0.75] * 4, [True, True, True, False], 0.0),
        ([0.25] * 4, [True, True, True, False], 0.5),
        # Two bins of two models, off by 0.1 and by 0.3.
        ([0.41, 0.39, 0.8, 0.8], [True, False, True, False], (0.59 + 0.39 + 0.6) / 4),
    ],
)
def test_calibration_error_by_hand(
    probabilities: list[float], backdoored: list[bool], expected: float
) -> None:
    assert expected_calibration_error(probabilities, backdoored) == pytest.approx(expected)


def test_the_mean_of_several_aucs_has_its_own_interval() -> None:
    random = np.random.default_rng(0)
    bad = np.arange(60) % 2 == 1
    groups = [(random.normal(size=60) + shift * bad, bad, np.arange(60)) for shift in (0.5, 2.0)]
    mean = np.mean([auc(scores, bad) for scores, _, _ in groups])
    interval = mean_auc_interval(groups)
    assert interval.low < mean < interval.high
    single = auc_interval(*groups[0])
    assert interval.high - interval.low < single.high - single.low


def test_where_every_group_is_told_apart_the_trials_add_up() -> None:
    bad = np.array([False, True] * 10)
    perfect = (bad.astype(float), bad, np.arange(20))
    both = mean_auc_interval([perfect, perfect])
    assert (both.low, both.high) == binomial_interval(20, 20)
    assert both.method == "exact binomial"
