"""From a model's answers to patterns to one feature vector: g of the paper's equation (1)."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURES", "POOLINGS", "Features", "Pooling", "pool"]

Pooling = Literal["concatenate", "max", "mean"]
Features = Literal["log_probs", "logits"]

POOLINGS: Final[tuple[Pooling, ...]] = ("concatenate", "max", "mean")
FEATURES: Final[tuple[Features, ...]] = ("log_probs", "logits")
"""What a model's answer is: floored log-probabilities, or raw logits for the ablation."""


def pool(answers: NDArray[np.float64], pooling: Pooling) -> NDArray[np.float64]:
    """Return (n, m * k) for concatenation, (n, k) otherwise, of answers (n, m, k)."""
    if pooling == "concatenate":
        return answers.reshape(len(answers), -1)
    pooled: NDArray[np.float64] = answers.max(axis=1) if pooling == "max" else answers.mean(axis=1)
    return pooled
