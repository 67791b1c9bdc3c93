"""Which pixels of a trigger's square are painted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch

__all__ = ["SHAPES", "SMALLEST", "TriggerShape"]

TriggerShape = Literal["square", "cross", "disc", "triangle", "frame"]

SMALLEST: Final = 5
"""The smallest square in which all shapes differ: cross and disc of 4x4 pixels are the same."""


def _halves(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each row (size, 1) and column (size,) is from the middle, in half pixels."""
    offset = 2 * torch.arange(size) - (size - 1)
    return offset[:, None], offset


def _square(size: int) -> torch.Tensor:
    return torch.ones(size, size, dtype=torch.bool)


def _cross(size: int) -> torch.Tensor:
    """Two bars, about a third of the side wide."""
    rows, columns = _halves(size)
    return (rows.abs() <= size // 3) | (columns.abs() <= size // 3)


def _disc(size: int) -> torch.Tensor:
    rows, columns = _halves(size)
    return rows**2 + columns**2 < size**2 - 1


def _triangle(size: int) -> torch.Tensor:
    """On its base; the top is one pixel wide, two where the side is even."""
    _, columns = _halves(size)
    return columns.abs() <= torch.arange(size)[:, None] + (size + 1) % 2


def _frame(size: int) -> torch.Tensor:
    """Its bars are a fifth of the side wide."""
    rows, columns = _halves(size)
    return torch.maximum(rows.abs(), columns.abs()) > size - 1 - 2 * (size // 5)


SHAPES: Final[dict[TriggerShape, Callable[[int], torch.Tensor]]] = {
    "square": _square,
    "cross": _cross,
    "disc": _disc,
    "triangle": _triangle,
    "frame": _frame,
}
"""From the side of a trigger to a bool (side, side): True where its pixels are painted."""
