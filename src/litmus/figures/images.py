"""Grids of images with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litmus.figures.drawing import bare, show, styled, svg

__all__ = ["image_grid", "labelled_images", "patterns_by_member"]


@styled
def labelled_images(images: Sequence[tuple[str, NDArray[Any]]], *, columns: int = 10) -> str:
    """Draw images (c, h, w), uint8 or floats in [0, 1], each with its label below."""
    rows = -(-len(images) // columns)
    figure, axes = _grid(rows, min(columns, len(images)), cell=0.9, label=0.25)
    for axis, (label, image) in zip(axes, images, strict=False):
        show(axis, image)
        axis.set_xlabel(label, fontsize=7)
    return svg(figure)


@styled
def image_grid(rows: Sequence[tuple[str, NDArray[Any]]]) -> str:
    """Draw one row of images (n, c, h, w) for each label."""
    columns = max(len(images) for _, images in rows)
    figure, axes = _grid(len(rows), columns, cell=0.9, label=0.05, left=1.6)
    for r, (label, images) in enumerate(rows):
        for axis, image in zip(axes[r * columns :], images, strict=False):
            show(axis, image)
        axes[r * columns].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return svg(figure)


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
        bare(axis)
    return figure, flat
