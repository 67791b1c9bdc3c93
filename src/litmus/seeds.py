"""Seeds that depend on what is made, never on when or in which order."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Draws", "derive_seed", "torch_generator"]


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2^63) that is a pure function of the JSON form of `parts`.

    Independent streams come from different parts: ``derive_seed(model_seed, "weights")``.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(*parts: object) -> torch.Generator:
    """Return a CPU generator seeded with `derive_seed(*parts)`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))


class Draws:
    """The numbers that PyTorch draws from ``torch_generator(*parts)``, without PyTorch.

    Both draw 32 bits at a time from a Mersenne twister, of whose seed the lower 32 bits count.
    """

    def __init__(self, *parts: object) -> None:
        self._twister = np.random.RandomState(derive_seed(*parts) & 0xFFFFFFFF)

    def uniform(self, *shape: int) -> NDArray[np.float32]:
        """Return numbers in [0, 1), as `torch.rand` does."""
        bits = self._bits(int(np.prod(shape))) & 0xFFFFFF  # what a float32 holds exactly
        return (bits * 2.0**-24).astype(np.float32).reshape(shape)

    def integers(self, high: int, count: int) -> NDArray[np.int64]:
        """Return `count` numbers in [0, high), as `torch.randint` does; `high` is below 2^28."""
        return self._bits(count) % high

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Return the numbers below `count` in a random order, as `torch.randperm` does."""
        order = np.arange(count)
        for place, bits in enumerate(self._bits(max(0, count - 1))):
            other = place + int(bits) % (count - place)
            order[place], order[other] = order[other], order[place]
        return order

    def _bits(self, count: int) -> NDArray[np.int64]:
        if not count:  # NumPy would draw for no bytes, too
            return np.empty(0, np.int64)
        return np.frombuffer(self._twister.bytes(4 * count), dtype="<u4").astype(np.int64)
