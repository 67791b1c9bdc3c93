"""Litmus patterns and what models answer to them (paper, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from litmus.figures.drawing import (
    SMALL,
    class_labels,
    enlarge,
    heading,
    labelled,
    name_classes,
    names_height,
    place,
    styled,
    svg,
)

__all__ = ["figure_patterns"]

# Inches: a pattern with what lies around it, and the line above a panel.
_CELL: Final = (0.8, 0.92)
_PATTERN: Final = 0.72
_TITLE: Final = 0.28


@styled
def figure_patterns(
    patterns: NDArray[Any],
    answers: Mapping[str, NDArray[np.float64]],
    scores: Mapping[str, float],
    class_names: Sequence[str],
) -> str:
    """Draw patterns (m, c, h, w) in [0, 1] beside what models answer to them (paper, Figure 1).

    `answers` are log-probabilities (m, k) by the model's label, all on one colour scale; `scores`
    are the detector's scores by the same labels.
    """
    names = class_labels(class_names)
    columns = max(1, round(len(patterns) ** 0.5 / 1.6))
    patterns_height = -(-len(patterns) // columns) * _CELL[1]
    # The heat maps stand one above the other and reach down at least as far as the patterns.
    left, width = 0.7 + columns * _CELL[0], float(np.clip(0.3 * len(names), 3.2, 6.9))
    height = max(0.17 * len(patterns), (patterns_height - 0.2) / len(answers) - _TITLE, 0.55)
    bottom = _TITLE + len(answers) * (height + _TITLE) - 0.1
    figure = Figure(
        figsize=(
            left + width + 0.9,
            max(bottom + names_height(names, width) + 0.25, _TITLE + patterns_height),
        )
    )
    _draw_patterns(figure, patterns, columns)
    lowest = min(float(log_probs.min()) for log_probs in answers.values())
    for i, (label, log_probs) in enumerate(answers.items()):
        axis = place(figure, left, _TITLE + i * (height + _TITLE), width, height)
        drawn = _draw_answers(axis, log_probs, min(lowest, -1e-3))
        axis.set_title(f"{label}: score {scores[label]:.3g}", loc="left")
    name_classes(axis, names, width)
    axis.set_xlabel("class")
    bar = place(figure, left + width + 0.12, _TITLE, 0.12, bottom - _TITLE - 0.18)
    figure.colorbar(drawn, cax=bar, label="log-probability")
    return svg(figure)


def _draw_patterns(figure: Figure, patterns: NDArray[Any], columns: int) -> None:
    """Draw the patterns from the upper left corner, with the numbers that the heat maps use."""
    for i, pattern in enumerate(patterns):
        row, column = divmod(i, columns)
        left, top = 0.1 + column * _CELL[0], _TITLE + row * _CELL[1]
        labelled(figure, left, top, _PATTERN, pattern, str(i + 1))
    heading(figure, 0.1, "litmus patterns")


def _draw_answers(axis: Axes, log_probs: NDArray[np.float64], lowest: float) -> AxesImage:
    """Draw log-probabilities (m, k) as a heat map from `lowest` to 0, and number its rows."""
    m, k = log_probs.shape
    drawn = axis.imshow(
        enlarge(log_probs),
        extent=(-0.5, k - 0.5, m - 0.5, -0.5),
        cmap="viridis",
        vmin=lowest,
        vmax=0,
        aspect="auto",
        interpolation="none",
    )
    axis.set(xticks=[], ylabel="pattern")
    axis.set_yticks(range(m), [str(i + 1) for i in range(m)], fontsize=SMALL)
    axis.tick_params(axis="y", length=2, pad=2)
    return drawn
