"""How far a class stands out from the others, whatever the order of the classes and the scale."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONSISTENCY", "FLOOR", "ROUNDING", "robust_scores"]

CONSISTENCY: Final = 1.4826
"""Makes the median absolute deviation an estimate of a normal's standard deviation."""
FLOOR: Final = 0.1
"""Of the root mean square deviation: where most classes are all but equal, it is the scale."""
ROUNDING: Final = 1e-9
"""Relative to the largest value: what differs by less is equal."""


def robust_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return arcsinh((values - median) / deviation), (k,); 0 for all where they are equal.

    The deviation is the median absolute one, scaled to a normal's standard deviation and floored.
    The inverse hyperbolic sine keeps small scores and makes large ones logarithms: what is ten or
    a hundred deviations off is off, and must not drown the rest.
    """
    away = values - np.median(values)
    spread = np.sqrt(np.mean(away**2))
    if spread <= ROUNDING * np.abs(values).max():
        return np.zeros_like(away)
    deviation = max(CONSISTENCY * float(np.median(np.abs(away))), FLOOR * float(spread))
    scores: NDArray[np.float64] = np.arcsinh(away / deviation)
    return scores
