"""Seeds that depend on what is made, never on when or in which order."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "torch_generator"]


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
