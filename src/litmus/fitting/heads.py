"""Logistic heads on numbers that a detector reads of each model: one a member, as in five folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ZooError

__all__ = ["FittedHead", "fit_heads", "stack"]

_STD_FLOOR: Final = 1e-3
"""As for patterns' features: one that is the same for all models must not be blown up."""
_TOLERANCE: Final = 1e-8
_STACK_DECAY: Final = 0.01
"""Little: there are few weights and many models."""


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A member's head, and the positions of the models it never saw.

    The log-odds of a backdoor are ``weight (f,) @ (statistics - mean (f,)) / std (f,) + bias ()``.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    held_out: NDArray[np.int64]
    num_training: int


def fit_heads(
    statistics: NDArray[np.float64],
    backdoored: NDArray[np.bool_],
    folds: NDArray[np.int64],
    *,
    members: int,
    weight_decay: float,
    seen: Sequence[NDArray[np.bool_]] | None = None,
) -> list[FittedHead]:
    """Fit a head for each of the first `members` folds, on the models (n, f) of all others.

    Of these each member sees only the `seen` ones, where that is said.
    Minimises the mean cross-entropy plus `weight_decay` / 2 times the squared norm of the weights
    of standardised statistics. Raises ZooError where only one kind of models is left to fit on.
    """
    permitted = [folds != member for member in range(members)] if seen is None else seen
    return [
        _fit(statistics, backdoored, models, np.flatnonzero(folds == member), weight_decay)
        for member, models in enumerate(permitted)
    ]


def stack(
    scores: NDArray[np.float64], backdoored: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Return weights (p,) and bias of a logistic regression on p detectors' log-odds (n, p)."""
    everything, nothing = np.ones(len(scores), dtype=bool), np.empty(0, dtype=np.int64)
    head = _fit(scores, backdoored, everything, nothing, _STACK_DECAY)
    weights = head.weight / head.std
    return weights, float(head.bias - weights @ head.mean)


def _fit(
    statistics: NDArray[np.float64],
    backdoored: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    held_out: NDArray[np.int64],
    weight_decay: float,
) -> FittedHead:
    # Takes a second, which a fit of patterns need not wait for.
    from sklearn.linear_model import LogisticRegression

    rows, labels = statistics[seen], backdoored[seen]
    if labels.all() or not labels.any():
        raise ZooError(
            "too few models to fit a detector",
            expected="clean and backdoored ones in every four of five folds",
            got=f"{len(labels)} of one kind",
        )
    mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), _STD_FLOOR)
    # scikit-learn weighs the sum of the models' losses, not their mean.
    regression = LogisticRegression(
        C=1 / (weight_decay * len(rows)), solver="newton-cholesky", tol=_TOLERANCE
    )
    regression.fit((rows - mean) / std, labels)
    return FittedHead(
        mean=mean,
        std=std,
        weight=regression.coef_[0],
        bias=regression.intercept_[0],
        held_out=held_out,
        num_training=len(rows),
    )
