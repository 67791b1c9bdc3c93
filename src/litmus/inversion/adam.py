"""Adam (Kingma and Ba 2015) on arrays of candidates that may be dropped on the way."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adam"]

_LEAST: Final = 1e-8


class Adam:
    """The moments of one array of values, which `step` changes in place."""

    def __init__(
        self,
        values: NDArray[np.float32],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        least: float = _LEAST,
    ) -> None:
        self._first, self._second = np.zeros_like(values), np.zeros_like(values)
        self._betas, self._least = betas, least
        self._steps = 0

    def step(
        self, values: NDArray[np.float32], gradients: NDArray[np.float32], rate: float
    ) -> None:
        """Move `values` against `gradients` of the same shape, by about `rate` each."""
        slow, slower = self._betas
        self._steps += 1
        self._first += (1 - slow) * (gradients - self._first)
        self._second += (1 - slower) * (gradients**2 - self._second)
        mean = self._first / (1 - slow**self._steps)
        scale = np.sqrt(self._second / (1 - slower**self._steps)) + self._least
        values -= rate * mean / scale

    def keep(self, index: NDArray[np.int64]) -> None:
        """Keep the moments of these candidates alone, in this order."""
        self._first, self._second = self._first[index], self._second[index]
