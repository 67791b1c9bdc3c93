"""Triggers and how a backdoored model answers (paper, Figure 2)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from litmus.figures.drawing import (
    COLOURS,
    SMALL,
    class_labels,
    heading,
    labelled,
    name_classes,
    names_height,
    place,
    styled,
    svg,
    text_width,
)

__all__ = ["figure_triggers"]

_LINE: Final = 1.35 * SMALL / 72  # inches, as all sizes here
_COLUMNS: Final = 4
_TOP: Final = 0.3
_LEGEND: Final = 2.2 * _LINE
_BARS: Final = 1.5
_GAP: Final = 0.3
_SOURCE, _TARGET, _OTHER = COLOURS[0], COLOURS[1], "0.75"


@styled
def figure_triggers(
    triggers: Sequence[tuple[str, NDArray[Any]]],
    class_names: Sequence[str],
    clean_accuracy: NDArray[np.float64],
    source_class: int,
    target_class: int,
    examples: Sequence[tuple[str, NDArray[Any]]],
) -> str:
    """Draw the triggers beside one backdoored model's accuracy and examples (paper, Figure 2).

    `triggers` and `examples` are images (c, h, w) with their labels, uint8 or floats in [0, 1];
    `clean_accuracy` (k,) is in [0, 1], by class.
    """
    names = class_labels(class_names)
    cell = max(0.62, *(text_width(label) + 0.1 for label, _ in triggers))
    left = 0.1 + min(_COLUMNS, len(triggers)) * cell + 0.75
    width = float(np.clip(0.3 * len(names), 4.2, 6.9))
    below = _TOP + _LEGEND + _BARS + names_height(names, width) + _GAP
    size = min(1.2, width / len(examples) - 0.15)
    wrapped = [_wrap(label, width / len(examples) - 0.08) for label, _ in examples]
    lines = max(label.count("\n") + 1 for label in wrapped)
    rows = -(-len(triggers) // _COLUMNS)
    pitch = cell + 2 * _LINE
    figure = Figure(
        figsize=(
            left + width + 0.15,
            max(below + size + lines * _LINE + 0.15, _TOP + rows * pitch),
        )
    )
    heading(figure, 0.1, "triggers")
    for i, (label, image) in enumerate(triggers):
        row, column = divmod(i, _COLUMNS)
        labelled(figure, 0.1 + column * cell, _TOP + row * pitch, cell - 0.1, image, label)
    heading(figure, left, "clean accuracy of a backdoored model, by class")
    axis = place(figure, left, _TOP + _LEGEND, width, _BARS)
    name_classes(axis, names, width)
    _draw_bars(axis, clean_accuracy, class_names, source_class, target_class)
    for i, (label, (_, image)) in enumerate(zip(wrapped, examples, strict=True)):
        x = left + (i + 0.5) * width / len(examples) - size / 2
        labelled(figure, x, below, size, image, label)
    return svg(figure)


def _draw_bars(
    axis: Axes,
    accuracy: NDArray[np.float64],
    class_names: Sequence[str],
    source_class: int,
    target_class: int,
) -> None:
    """Draw the bars and colour those of source and target, and their names below."""
    colours = {source_class: _SOURCE, target_class: _TARGET}
    classes = range(len(accuracy))
    axis.bar(classes, accuracy, width=0.75, color=[colours.get(i, _OTHER) for i in classes])
    for name, i in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True):
        if i in colours:
            name.set(color=colours[int(i)], fontweight="bold")
    axis.set(xlim=(-0.6, len(accuracy) - 0.4), ylim=(0, 1), ylabel="clean accuracy")
    axis.legend(
        [Patch(color=_SOURCE), Patch(color=_TARGET)],
        [
            f"source class: {class_names[source_class]}",
            f"target class: {class_names[target_class]}",
        ],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        labelspacing=0.2,
        fontsize=SMALL,
        frameon=False,
    )


def _wrap(label: str, width: float) -> str:
    """Break a label into lines of at most `width` inches; its own breaks stay."""
    letters = max(4, int(width / text_width("n" * 10) * 10))
    return "\n".join(textwrap.fill(line, letters) for line in label.split("\n"))
