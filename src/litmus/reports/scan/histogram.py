"""A model's score on the histogram of those that calibrated the detector, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.calibration import Calibration
from litmus.scanning import Scored

__all__ = ["Bar", "Histogram", "Mark", "Tick", "histogram"]

_MARGIN: Final = 0.04
_REACH: Final = 4.0
"""The axis goes at most so many times the width of the histogram beyond it."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bin from `left`, `width` wide (percent of the plot), of clean models' scores.

    `below` of them look less suspicious than the model at hand, `above` at least as much.
    """

    left: float
    width: float
    below: int
    above: int


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value at `at` percent of the plot; it lies `beyond` it where that is not 0 (-1, 1)."""

    at: float
    beyond: int = 0


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A number on the axis, at `at` percent of the plot."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Bars with the marks of the model's score, of its members' and of the threshold."""

    bars: tuple[Bar, ...]
    tallest: int
    score: Mark
    members: tuple[Mark, ...]
    threshold: Mark
    ticks: tuple[Tick, ...]
    n: int
    n_above: int


def histogram(result: Scored, calibration: Calibration, fpr: float) -> Histogram:
    """Return the clean models' scores in bins, and where the model lies among them.

    Which of them look at least as suspicious is counted as the p-value counts: each against the
    score that its own member gives the model. Of several populations the deciding one is shown.
    """
    if result.member_scores:
        calibration = calibration.deciding(result.member_scores)
    scores = calibration.scores
    members = np.asarray(result.member_scores or [result.score], dtype=np.float64)
    by_member = members[calibration.members] if len(members) > 1 else members[0]
    above = scores >= by_member
    threshold = calibration.threshold(fpr)
    low, high = _range(scores, [result.score, threshold, *members.tolist()])
    edges = np.histogram_bin_edges(scores, bins=int(np.clip(2 * len(scores) ** 0.5, 6, 30)))
    all_counts, _ = np.histogram(scores, edges)
    above_counts, _ = np.histogram(scores[above], edges)

    def place(value: float) -> Mark:
        share = (value - low) / (high - low)
        beyond = -1 if share < 0 else 1 if share > 1 else 0
        return Mark(at=round(100 * float(np.clip(share, 0, 1)), 2), beyond=beyond)

    lefts = [place(edge).at for edge in edges]
    return Histogram(
        bars=tuple(
            Bar(left=lefts[i], width=round(lefts[i + 1] - lefts[i], 2), below=n - over, above=over)
            for i, (n, over) in enumerate(
                zip(all_counts.tolist(), above_counts.tolist(), strict=True)
            )
            if n
        ),
        tallest=int(all_counts.max()),
        score=place(result.score),
        members=tuple(place(float(score)) for score in members) if len(members) > 1 else (),
        threshold=place(threshold),
        ticks=tuple(
            Tick(at=place(value).at, label=f"{value:+g}" if value else "0")
            for value in _ticks(low, high)
        ),
        n=len(scores),
        n_above=int(above.sum()),
    )


def _range(scores: NDArray[np.float64], marks: list[float]) -> tuple[float, float]:
    low, high = float(scores.min()), float(scores.max())
    reach = _REACH * max(high - low, 1e-3)
    low = max(min(low, *marks), low - reach)
    high = min(max(high, *marks), high + reach)
    margin = _MARGIN * max(high - low, 1e-3)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers between `low` and `high`."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(step for step in (1, 2, 5, 10) if step * unit >= rough) * unit
    first, last = np.ceil(low / step), np.floor(high / step)
    return [round(float(i * step), 10) + 0.0 for i in np.arange(first, last + 1)]
