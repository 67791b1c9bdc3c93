"""What a model answers to a detector's patterns, ready to be drawn as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors import Detector
from litmus.reports.scan.pictures import shades
from litmus.scanning import Scored
from litmus.scanning.results import printable

__all__ = ["Answers", "Block", "Cell", "Row", "answers"]

_COLUMNS: Final = 10
"""A block of so many patterns fits on a narrow screen."""
_MOST_CLASSES: Final = 50


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A log-probability as text and as an index of the palette."""

    text: str
    shade: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A class's name and its log-probability on each pattern of a block."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some patterns of one member; `first` counts all patterns of the detector from 0."""

    title: str
    first: int
    columns: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Heat maps from `low` to `high`, and in words which classes are answered most often.

    `classes_left_out` are so many that never are among the likelier ones, and `names_from` tells
    whose names the classes have.
    """

    blocks: tuple[Block, ...]
    low: float
    high: float
    most_frequent: str
    classes_left_out: int
    names_from: str


def answers(result: Scored, detector: Detector) -> Answers | None:
    """Return a scored model's answers; None where the detector asked no patterns."""
    log_probs = np.asarray(result.log_probs, dtype=np.float64)
    sizes = [len(queries) for queries in detector.queries_by_member()]
    if log_probs.ndim != 2 or sum(sizes) != len(log_probs):
        return None
    names, names_from = _class_names(result, detector, log_probs.shape[1])
    shown = _likeliest(log_probs)
    low, high = float(log_probs.min()), float(log_probs.max())
    levels = shades(log_probs, low, high)
    blocks = []
    for title, first, columns in _cuts(sizes):
        span = range(first, first + columns)
        rows = tuple(
            Row(
                name=names[k],
                cells=tuple(
                    Cell(text=f"{log_probs[i, k]:.2f}", shade=int(levels[i, k])) for i in span
                ),
            )
            for k in shown
        )
        blocks.append(Block(title=title, first=first, columns=columns, rows=rows))
    return Answers(
        blocks=tuple(blocks),
        low=low,
        high=high,
        most_frequent=_most_frequent(log_probs, names),
        classes_left_out=len(names) - len(shown),
        names_from=names_from,
    )


def _class_names(result: Scored, detector: Detector, k: int) -> tuple[list[str], str]:
    known = [str(name) for name in detector.scope.get("class_names", ())]
    if len(result.classes) == k:
        return [printable(name) for name in result.classes], "the model's own names of its classes"
    if len(known) == k:
        return [printable(name) for name in known], "names of the classes of the detector's data"
    return [str(i) for i in range(k)], "classes by their numbers"


def _likeliest(log_probs: NDArray[np.float64]) -> list[int]:
    """The classes that are drawn, in order: of very many those that are likeliest on a pattern."""
    best = np.argsort(-log_probs.max(axis=0), kind="stable")[:_MOST_CLASSES]
    return sorted(best.tolist())


def _cuts(sizes: Sequence[int]) -> list[tuple[str, int, int]]:
    """Title, first pattern and number of patterns of each block."""
    cuts, start = [], 0
    for member, size in enumerate(sizes, 1):
        for first in range(0, size, _COLUMNS):
            columns = min(_COLUMNS, size - first)
            part = f", patterns {first + 1} to {first + columns}" if size > _COLUMNS else ""
            cuts.append((f"member {member}{part}", start + first, columns))
        start += size
    return cuts


def _most_frequent(log_probs: NDArray[np.float64], names: Sequence[str]) -> str:
    counts = np.bincount(log_probs.argmax(axis=1), minlength=len(names))
    ranked = [k for k in np.argsort(-counts, kind="stable")[:3].tolist() if counts[k]]
    return ", ".join(f"{names[k]} ({counts[k]} of {len(log_probs)})" for k in ranked)
