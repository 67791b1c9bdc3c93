"""Detection by poison ratio (paper, Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litmus.figures.drawing import COLOURS, styled, svg

__all__ = ["figure_poison_ratios"]

Interval: TypeAlias = tuple[float | None, float | None, float | None]
_MARKERS = "so^vDP<>"


@styled
def figure_poison_ratios(
    ratios: Sequence[float], lines: Mapping[str, Sequence[Interval]], title: str
) -> str:
    """Draw a line over the poison ratios for each label (paper, Figure 4).

    Each line has (value, low, high) for each of `ratios`, which are shares, in the order given;
    without a value the line has a gap, without an interval the value stands alone. The first
    line is the attack success and dashed, the others are AUCs.
    """
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axis = figure.subplots()
    dodge = min(0.09, 0.6 / len(lines))
    for i, (label, points) in enumerate(lines.items()):
        x = np.arange(len(ratios), dtype=np.float64) + dodge * (i - (len(lines) - 1) / 2)
        _draw(axis, x, points, label, i)
    values = [v for points in lines.values() for point in points for v in point if v is not None]
    axis.set_xticks(range(len(ratios)), [f"{100 * ratio:g} %" for ratio in ratios])
    bottom = 0.5 if min(values, default=0) >= 0.5 else 0.0  # the paper's axis, if all is on it
    margin = 0.02 * (1 - bottom)
    axis.set(
        xlabel="poison ratio",
        ylabel="attack success, AUC",
        title=title,
        xlim=(-0.5, len(ratios) - 0.5),
        ylim=(bottom - margin, 1 + margin),
    )
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False)
    return svg(figure)


def _draw(
    axis: Axes,
    x: NDArray[np.float64],
    points: Sequence[Interval],
    label: str,
    i: int,
) -> None:
    """Draw line number `i`; intervals need not contain their value, so they are plain strokes."""
    colour = COLOURS[i % len(COLOURS)]
    axis.plot(
        x,
        [np.nan if value is None else value for value, _, _ in points],
        label=label,
        color=colour,
        linestyle="-" if i else "--",
        linewidth=1.3,
        marker=_MARKERS[i % len(_MARKERS)],
        markersize=4.5,
        markerfacecolor=colour if i else "white",
    )
    for where, (value, low, high) in zip(x, points, strict=True):
        if value is not None and low is not None and high is not None:
            axis.vlines(where, low, high, color=colour, linewidth=0.9)
