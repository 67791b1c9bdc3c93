"""A number of clean and of backdoored models, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litmus.figures.drawing import COLOURS, styled, svg

__all__ = ["figure_populations"]

_KINDS = ("clean", "backdoored")
_SPREAD = 0.13


@styled
def figure_populations(
    rows: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], xlabel: str, title: str
) -> str:
    """Draw a dot for each model, clean (n,) above backdoored (m,) ones, a pair of strips a row.

    The longer stroke of each strip is its median.
    """
    figure = Figure(figsize=(6.2, 1.1 + 0.62 * len(rows)), layout="constrained")
    axis = figure.subplots()
    random = np.random.default_rng(0)  # only spreads dots, so that they do not hide one another
    for i, pair in enumerate(rows.values()):
        for j, values in enumerate(pair):
            centre = i + 0.4 * (j - 0.5)
            y = centre + random.uniform(-_SPREAD, _SPREAD, len(values))
            kind = f"{_KINDS[j]} (n = {len(values)})" if not i else None
            axis.plot(values, y, "o^"[j], ms=2.6, color=COLOURS[j], alpha=0.6, mew=0, label=kind)
            middle = float(np.median(values))
            axis.vlines(middle, centre - 0.2, centre + 0.2, color=COLOURS[j], linewidth=1.6)
        if i:
            axis.axhline(i - 0.5, color="0.9", linewidth=0.6)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5), title=title)
    axis.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return svg(figure)
