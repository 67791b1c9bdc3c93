"""What detectors read of last layers and of stamped images, in torch, so that it has gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from litmus.detectors.last_layer import TINY
from litmus.detectors.outliers import CONSISTENCY, FLOOR, ROUNDING
from litmus.detectors.stamps import LEAST

__all__ = ["layer_statistics", "robust_scores", "stamp_statistics"]

_PLACES: Final = (-1, -2, 0)
"""Of sorted scores: the largest, the second, the smallest."""


def layer_statistics(weights: torch.Tensor) -> torch.Tensor:
    """Return the numbers of `LastLayerDetector.statistic_names`, float64, with gradients."""
    rows = weights - weights.mean(dim=0)
    rows = rows / rows.abs().max().clamp(min=TINY)
    per_class = [
        rows.mean(dim=1),
        rows.square().sum(dim=1).sqrt(),
        rows.amax(dim=1),
        rows.amin(dim=1),
        rows.clamp(min=0).mean(dim=1),
        _kurtosis(rows),
    ]
    scores = torch.stack([robust_scores(values) for values in per_class]).sort(dim=1).values
    return scores[:, list(_PLACES)].flatten()


def robust_scores(values: torch.Tensor) -> torch.Tensor:
    """Return how far each value (k,) stands out, as `litmus.detectors.outliers` does."""
    away = values - _median(values)
    spread = away.square().mean().sqrt()
    if bool(spread <= ROUNDING * values.abs().max()):
        return torch.zeros_like(away)
    deviation = torch.maximum(CONSISTENCY * _median(away.abs()), FLOOR * spread)
    return torch.asinh(away / deviation)


def stamp_statistics(
    plain: torch.Tensor, answers: Sequence[torch.Tensor], own: torch.Tensor
) -> torch.Tensor:
    """Return the numbers of `StampsDetector.statistic_names`, float64, with gradients.

    `plain` (s, k) and `answers`, (t, s, k) for each family, are log-probabilities, float64.
    """
    kept = plain.exp()[torch.arange(len(own)), own]
    found = [kept.mean(), kept.min()]
    for shown in answers:
        found += _of_family(shown.exp(), own)
    return torch.logit(torch.stack(found), eps=LEAST)


def _of_family(shown: torch.Tensor, own: torch.Tensor) -> list[torch.Tensor]:
    s, k = shown.shape[1:]
    owned = torch.zeros(s, k, dtype=torch.bool)
    owned[torch.arange(s), own] = True
    kept = shown[:, owned]
    others = shown.masked_fill(owned, 0)
    targets = others.sum(dim=1) / (s - owned.sum(dim=0))
    surest = targets.amax(dim=1).sort().values
    steady, reached = targets.mean(dim=0).sort().values, targets.amax(dim=0).sort().values
    flips = others.amax(dim=2)
    pairs = others.mean(dim=0)
    ordered = pairs.flatten().sort().values
    return [
        surest[-1],
        surest[-3:].mean(),
        surest.mean(),
        steady[-1],
        steady[-2],
        _median(steady),
        reached[-2],
        _median(reached),
        kept.mean(dim=1).min(),
        kept.mean(),
        flips.max(),
        flips.amax(dim=0).mean(),
        flips.mean(dim=0).max(),
        ordered[-1],
        ordered[-2],
        pairs.amax(dim=1).mean(),
    ]


def _kurtosis(rows: torch.Tensor) -> torch.Tensor:
    squares = (rows - rows.mean(dim=1, keepdim=True)).square()
    return squares.square().mean(dim=1) / squares.mean(dim=1).square().clamp(min=TINY)


def _median(values: torch.Tensor) -> torch.Tensor:
    """The mean of the two middle ones, as NumPy has it; torch's own takes the lower one."""
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
