"""Numbers that a name draws, by SHAKE-256: no library's random stream can change them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn_bytes", "drawn_numbers"]


def drawn_bytes(name: str, count: int) -> NDArray[np.uint8]:
    """Return `count` uniform bytes, which may be written to; more of them start with the same."""
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(count), dtype=np.uint8).copy()


def drawn_numbers(name: str, count: int) -> NDArray[np.float64]:
    """Return `count` uniform numbers in [0, 1)."""
    # 53 bits are what a float64 holds exactly; more could round up to 1.
    return (drawn_bytes(name, 8 * count).view("<u8") >> np.uint64(11)) / np.float64(2**53)
