"""ROC curves, alone or one panel for each data set (paper, Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litmus.figures.drawing import COLOURS, place, styled, svg, text_width

__all__ = ["roc_curves", "roc_panels"]

# Inches: a panel, from one panel to the next, and what lies around them.
_PANEL: Final = 2.7
_PITCH: Final = 3.0
_LEFT: Final = 0.6
_TITLE: Final = 0.3
_AXIS: Final = 0.5
_LINE: Final = 0.2

Curves: TypeAlias = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@styled
def roc_curves(curves: Curves, title: str) -> str:
    """Draw ROC curves, given as false- and true-positive rates by label (paper, Figure 5)."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = figure.subplots()
    _draw(axis, curves, list(curves), title)
    axis.set_ylabel("true-positive rate")
    axis.legend(loc="lower right", frameon=False)
    return svg(figure)


@styled
def roc_panels(panels: Mapping[str, Curves]) -> str:
    """Draw a panel of ROC curves for each data set, with one legend (paper, Figure 5).

    A label has one colour in all panels, and a panel need not have every label.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    rows, columns = _legend_rows(labels, width=_LEFT + len(panels) * _PITCH)
    figure = Figure(
        figsize=(
            _LEFT + len(panels) * _PITCH,
            _TITLE + _PANEL + _AXIS + _LINE * rows + 0.1,
        )
    )
    handles: dict[str, Artist] = {}
    for i, (title, curves) in enumerate(panels.items()):
        axis = place(figure, _LEFT + i * _PITCH, _TITLE, _PANEL, _PANEL)
        _draw(axis, curves, labels, title)
        if i == 0:
            axis.set_ylabel("true-positive rate")
        else:
            axis.tick_params(axis="y", labelleft=False)
        handles.update({str(line.get_label()): line for line in axis.get_lines()})
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="lower center",
        ncols=columns,
        frameon=False,
        borderaxespad=0.2,
    )
    return svg(figure)


def _legend_rows(labels: Sequence[str], *, width: float) -> tuple[int, int]:
    """Return rows and columns of a legend `width` inches wide, in rows about equally long."""
    entry = max(text_width(label, 9) for label in labels) + 0.6
    rows = -(-len(labels) // max(1, int((width - 0.2) // entry)))
    return rows, -(-len(labels) // rows)


def _draw(axis: Axes, curves: Curves, labels: Sequence[str], title: str) -> None:
    """Draw the curves over the diagonal; a label's place among `labels` gives its colour."""
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    for label, (fpr, tpr) in curves.items():
        i = labels.index(label)
        # Each curve a little inside the last one, so that equal ones stay visible.
        axis.step(
            fpr + 0.004 * i,
            tpr - 0.004 * i,
            where="post",
            label=label,
            color=COLOURS[i % len(COLOURS)],
            linestyle="-" if i < len(COLOURS) else "--",
        )
    axis.set(
        xlabel="false-positive rate",
        title=title,
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
        aspect="equal",
    )
