"""Pictures: pure functions from arrays to SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = [
    "image_grid",
    "labelled_images",
    "patterns_by_member",
    "roc_curves",
]

_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "litmus",  # the same picture is the same text
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def labelled_images(images: Sequence[tuple[str, NDArray[Any]]], *, columns: int = 10) -> str:
    """Draw images (c, h, w), uint8 or floats in [0, 1], each with its label below."""
    rows = -(-len(images) // columns)
    figure, axes = _grid(rows, min(columns, len(images)), cell=0.9, label=0.25)
    for axis, (label, image) in zip(axes, images, strict=False):
        _show(axis, image)
        axis.set_xlabel(label, fontsize=7)
    return _svg(figure)


def image_grid(rows: Sequence[tuple[str, NDArray[Any]]]) -> str:
    """Draw one row of images (n, c, h, w) for each label."""
    columns = max(len(images) for _, images in rows)
    figure, axes = _grid(len(rows), columns, cell=0.9, label=0.05, left=1.6)
    for r, (label, images) in enumerate(rows):
        for axis, image in zip(axes[r * columns :], images, strict=False):
            _show(axis, image)
        axes[r * columns].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return _svg(figure)


def roc_curves(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], title: str
) -> str:
    """Draw ROC curves, given as false- and true-positive rates by label (paper, Figure 5)."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    for i, (label, (fpr, tpr)) in enumerate(curves.items()):
        # Each curve a little inside the last one, so that equal ones stay visible.
        axis.step(
            fpr + 0.004 * i,
            tpr - 0.004 * i,
            where="post",
            label=label,
            color=_COLOURS[i % len(_COLOURS)],
        )
    axis.set(
        xlabel="false-positive rate",
        ylabel="true-positive rate",
        title=title,
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axis.legend(loc="lower right", frameon=False)
    return _svg(figure)


def patterns_by_member(members: Sequence[NDArray[Any]]) -> str:
    """Draw each member's patterns (m, c, h, w) in a row (paper, Figure 1)."""
    return image_grid([(f"member {i}", patterns) for i, patterns in enumerate(members)])


def _grid(
    rows: int, columns: int, *, cell: float, label: float, left: float = 0.05
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` bare axes; sizes in inches."""
    width, height = left + columns * cell, rows * (cell + label) + 0.1
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 0.99,
            "top": 0.99,
            "bottom": 0.01 + label / height,
            "wspace": 0.08,
            "hspace": 0.08 + label / cell,
        },
    )
    flat = list(axes.flat)
    for axis in flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, flat


def _show(axis: Axes, image: NDArray[Any]) -> None:
    pixels = np.asarray(image)
    unit = pixels / 255 if pixels.dtype == np.uint8 else pixels
    picture = unit[0] if len(unit) == 1 else unit.transpose(1, 2, 0)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.spines[:].set(visible=True, color="0.8", linewidth=0.5)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
