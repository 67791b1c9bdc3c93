"""From a model's answers to patterns to two logits: g and h of the paper's equation (1), in numpy.

`litmus.fitting.readout` has the same functions for learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEATURES",
    "HEADS",
    "POOLINGS",
    "Features",
    "HeadName",
    "Parameters",
    "Pooling",
    "head_logits",
    "pool",
    "scaled_per_model",
]

Pooling = Literal["concatenate", "max", "mean"]
Features = Literal["log_probs", "logits"]
HeadName = Literal["linear", "class_set"]
Parameters = Mapping[str, NDArray[np.float64]]
"""A head's arrays by name. Both kinds have `mean` and `std`, which standardise, and `weight`
(2, f) and `bias` (2,) of the last layer; `class_set` has `class_weight` (h, m) and `class_bias`
(h,) besides."""

POOLINGS: Final[tuple[Pooling, ...]] = ("concatenate", "max", "mean")
FEATURES: Final[tuple[Features, ...]] = ("log_probs", "logits")
"""What a model's answer is: floored log-probabilities, or raw logits for the ablation."""
HEADS: Final[dict[HeadName, tuple[str, ...]]] = {
    "linear": ("mean", "std", "weight", "bias"),
    "class_set": ("mean", "std", "class_weight", "class_bias", "weight", "bias"),
}
"""Each head's parameters."""

_SCALE_FLOOR: Final = 1e-3


def pool(answers: NDArray[np.float64], pooling: Pooling) -> NDArray[np.float64]:
    """Return (n, m * k) for concatenation, (n, k) otherwise, of answers (n, m, k)."""
    if pooling == "concatenate":
        return answers.reshape(len(answers), -1)
    pooled: NDArray[np.float64] = answers.max(axis=1) if pooling == "max" else answers.mean(axis=1)
    return pooled


def scaled_per_model(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return answers (n, m, k) with each model's own mean 0 and deviation 1: confidence is gone."""
    mean = answers.mean(axis=(1, 2), keepdims=True)
    std = answers.std(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float64] = (answers - mean) / np.maximum(std, _SCALE_FLOOR)
    return scaled


def head_logits(
    head: HeadName, parameters: Parameters, answers: NDArray[np.float64], pooling: Pooling
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a head's logits (2,) for one model's answers (m, k), and what it standardised.

    `linear` is a softmax classifier on the pooled answers (the paper). `class_set` (Zaheer et al.
    2017) reads each class's m answers by the same layer and sees only the mean and the maximum
    over classes of what that returns, so that their order does not matter.
    """
    p = parameters
    if head == "linear":
        standardised = (pool(answers[None], pooling)[0] - p["mean"]) / p["std"]
        feature = standardised
    else:
        standardised = (answers.T - p["mean"]) / p["std"]
        hidden = np.maximum(standardised @ p["class_weight"].T + p["class_bias"], 0)
        feature = np.concatenate([hidden.mean(axis=0), hidden.max(axis=0)])
    logits: NDArray[np.float64] = p["weight"] @ feature + p["bias"]
    return logits, standardised
