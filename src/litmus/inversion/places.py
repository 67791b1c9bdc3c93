"""Where a patch lies: as `litmus.attacks.places`, without PyTorch and with the same draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.seeds import Draws

__all__ = ["PLACES", "Place"]

Place = Callable[[int, int, int, int, Draws], NDArray[np.int64]]
"""(number of images, height, width, patch size, draws) -> rows and columns, int64 (n, 2)."""

_SURFACE_RADIUS: Final = 0.22
"""Share of the side."""


def _corner(n: int, height: int, width: int, size: int, draws: Draws) -> NDArray[np.int64]:
    side = draws.integers(2, 2 * n).reshape(n, 2)
    corners: NDArray[np.int64] = side * np.array([height - size, width - size])
    return corners


def _anywhere(n: int, height: int, width: int, size: int, draws: Draws) -> NDArray[np.int64]:
    rows = draws.integers(height - size + 1, n)
    return np.stack([rows, draws.integers(width - size + 1, n)], axis=1)


def _surface(n: int, height: int, width: int, size: int, draws: Draws) -> NDArray[np.int64]:
    # In float32 throughout, so that rounding to pixels goes the same way.
    angle = draws.uniform(n) * np.float32(2 * np.pi)
    radius = np.float32(_SURFACE_RADIUS) * np.sqrt(draws.uniform(n))
    unit = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    sides = np.array([height, width])
    centre = (radius[:, None] * unit + np.float32(0.5)) * sides.astype(np.float32)
    corner = np.rint(centre - np.float32(size / 2)).astype(np.int64)
    inside: NDArray[np.int64] = np.minimum(np.maximum(corner, 0), sides - size)
    return inside


PLACES: Final[dict[str, Place]] = {"corner": _corner, "anywhere": _anywhere, "surface": _surface}
