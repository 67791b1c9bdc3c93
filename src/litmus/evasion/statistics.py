"""The statistics of a model's last layer in torch, as `litmus.detectors.last_layer` has them."""

from __future__ import annotations

from typing import Final

import torch

from litmus.detectors.last_layer import TINY
from litmus.detectors.outliers import CONSISTENCY, FLOOR, ROUNDING

__all__ = ["layer_statistics", "robust_scores"]

_PLACES: Final = (-1, -2, 0)
"""Of sorted scores: the largest, the second, the smallest."""


def layer_statistics(weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the numbers of `LastLayerDetector.statistic_names`, float64, with gradients."""
    rows = weights - weights.mean(dim=0)
    rows = rows / rows.abs().max().clamp(min=TINY)
    norms = rows.square().sum(dim=1).sqrt()
    unit = rows / norms.clamp(min=TINY)[:, None]
    cosines = unit @ unit.T
    same = torch.eye(len(rows), dtype=torch.bool)
    per_class = [
        rows.mean(dim=1),
        norms,
        rows.amax(dim=1),
        rows.amin(dim=1),
        rows.clamp(min=0).mean(dim=1),
        _kurtosis(rows),
        bias - bias.mean(),
        cosines.masked_fill(same, -1.0).amax(dim=1),
    ]
    scores = torch.stack([robust_scores(values) for values in per_class]).sort(dim=1).values
    apart = cosines[~same]
    spread = torch.stack([apart.max(), apart.min(), apart.std(correction=0)])
    return torch.cat([scores[:, list(_PLACES)].flatten(), spread])


def robust_scores(values: torch.Tensor) -> torch.Tensor:
    """Return how far each value (k,) stands out, as `litmus.detectors.outliers` does."""
    away = values - _median(values)
    spread = away.square().mean().sqrt()
    if bool(spread <= ROUNDING * values.abs().max()):
        return torch.zeros_like(away)
    deviation = torch.maximum(CONSISTENCY * _median(away.abs()), FLOOR * spread)
    return torch.asinh(away / deviation)


def _kurtosis(rows: torch.Tensor) -> torch.Tensor:
    squares = (rows - rows.mean(dim=1, keepdim=True)).square()
    return squares.square().mean(dim=1) / squares.mean(dim=1).square().clamp(min=TINY)


def _median(values: torch.Tensor) -> torch.Tensor:
    """The mean of the two middle ones, as NumPy has it; torch's own takes the lower one."""
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
