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
    monotone: bool = False,
    seen: Sequence[NDArray[np.bool_]] | None = None,
) -> list[FittedHead]:
    """Fit a head for each of the first `members` folds, on the models (n, f) of all others.

    Of these each member sees only the `seen` ones, where that is said.
    Minimises the mean cross-entropy plus `weight_decay` / 2 times the squared norm of the weights
    of standardised statistics, of which none is below 0 if `monotone`. Raises ZooError where only
    one kind of models is left to fit on.
    """
    permitted = [folds != member for member in range(members)] if seen is None else seen
    return [
        _fit(
            statistics, backdoored, models, np.flatnonzero(folds == member), weight_decay, monotone
        )
        for member, models in enumerate(permitted)
    ]


def stack(
    scores: NDArray[np.float64], backdoored: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Return weights (p,) and bias of a logistic regression on p detectors' log-odds (n, p).

    No weight is below 0 (Breiman 1996): a detector's evidence is not held against a model.
    """
    everything, nothing = np.ones(len(scores), dtype=bool), np.empty(0, dtype=np.int64)
    head = _fit(scores, backdoored, everything, nothing, _STACK_DECAY, monotone=True)
    weights = head.weight / head.std
    return weights, float(head.bias - weights @ head.mean)


def _fit(
    statistics: NDArray[np.float64],
    backdoored: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    held_out: NDArray[np.int64],
    weight_decay: float,
    monotone: bool,
) -> FittedHead:
    rows, labels = statistics[seen], backdoored[seen]
    if labels.all() or not labels.any():
        raise ZooError(
            "too few models to fit a detector",
            expected="clean and backdoored ones in every four of five folds",
            got=f"{len(labels)} of one kind",
        )
    mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), _STD_FLOOR)
    solve = _monotone_solution if monotone else _solution
    weight, bias = solve((rows - mean) / std, labels, weight_decay)
    return FittedHead(
        mean=mean,
        std=std,
        weight=weight,
        bias=np.asarray(bias),
        held_out=held_out,
        num_training=len(rows),
    )


def _solution(
    rows: NDArray[np.float64], labels: NDArray[np.bool_], weight_decay: float
) -> tuple[NDArray[np.float64], float]:
    # Takes a second to import, which a fit of patterns need not wait for.
    from sklearn.linear_model import LogisticRegression

    # scikit-learn weighs the sum of the models' losses, not their mean.
    regression = LogisticRegression(
        C=1 / (weight_decay * len(rows)), solver="newton-cholesky", tol=_TOLERANCE
    )
    regression.fit(rows, labels)
    return regression.coef_[0], regression.intercept_[0]


def _monotone_solution(
    rows: NDArray[np.float64], labels: NDArray[np.bool_], weight_decay: float
) -> tuple[NDArray[np.float64], float]:
    """The same objective's smallest value where no weight is below 0."""
    from scipy.optimize import minimize
    from scipy.special import expit

    columns = np.column_stack([rows, np.ones(len(rows))])
    decay = np.append(np.full(rows.shape[1], weight_decay), 0.0)

    def objective(solution: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = columns @ solution
        loss = np.mean(np.logaddexp(0, odds) - labels * odds) + solution @ (decay * solution) / 2
        return float(loss), (expit(odds) - labels) @ columns / len(rows) + decay * solution

    found = minimize(
        objective,
        np.zeros(columns.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * rows.shape[1] + [(None, None)],
        options={"ftol": 0.0, "gtol": _TOLERANCE},
    )
    return found.x[:-1], float(found.x[-1])
