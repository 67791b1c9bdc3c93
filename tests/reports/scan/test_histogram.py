from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from litmus.detectors.calibration import Calibration
from litmus.reports.scan.histogram import histogram
from tests.reports.scan.cases import candidates, scored


def calibration(*scores: float, members: int = 1) -> Calibration:
    return Calibration(
        scores=np.array(scores),
        members=np.arange(len(scores)) % members,
        temperature=1.0,
        scope_limit=1e3,
    )


@pytest.mark.parametrize("score", [-1.7, 0.0, 0.4, 1.9, 5.0])
def test_the_bars_count_what_p_counts(score: float) -> None:
    known = candidates()
    result = scored("m.onnx", score)
    judged_by = known.detectors[result.detector].calibration
    plot = histogram(result, judged_by, 0.05)
    assert plot.n_above == sum(bar.above for bar in plot.bars)
    assert plot.n == sum(bar.below + bar.above for bar in plot.bars) == 99
    assert result.p_value == (plot.n_above + 1) / (plot.n + 1)
    assert plot.tallest == max(bar.below + bar.above for bar in plot.bars)


def test_each_clean_model_is_compared_with_its_own_members_score() -> None:
    result = replace(scored("m.onnx", 0.0), score=1.0, member_scores=(0.0, 2.0))
    plot = histogram(result, calibration(0.5, 1.5, 0.5, 1.5, members=2), 0.3)
    # Members 0 and 1 take turns: 0.5 is beyond 0.0, 1.5 is not beyond 2.0.
    assert plot.n_above == 2
    assert [bar.above for bar in plot.bars] == [2, 0]


def test_all_marks_are_on_the_plot_in_their_order() -> None:
    plot = histogram(scored("m.onnx", 3.0), calibration(*np.linspace(-5, -1, 40)), 0.1)
    assert 0 < plot.bars[0].left < plot.threshold.at < plot.score.at < 100
    at = [tick.at for tick in plot.ticks]
    assert at == sorted(at)
    assert 3 <= len(at) <= 8
    assert not any(mark.beyond for mark in (plot.score, plot.threshold, *plot.members))


def test_a_score_far_off_leaves_the_bars_wide() -> None:
    plot = histogram(scored("m.onnx", 1e6), calibration(*np.linspace(-5, -1, 40)), 0.1)
    assert (plot.score.at, plot.score.beyond) == (100.0, 1)
    assert sum(bar.width for bar in plot.bars) > 15
    left = histogram(scored("m.onnx", -1e6), calibration(*np.linspace(-5, -1, 40)), 0.1)
    assert (left.score.at, left.score.beyond) == (0.0, -1)


def test_equal_scores_are_one_bar() -> None:
    plot = histogram(scored("m.onnx", 2.0), calibration(*[1.0] * 9), 0.2)
    assert sum(bar.below for bar in plot.bars) == 9
