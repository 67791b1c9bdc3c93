"""How a detector does against how many models it was fitted on: whether more would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from litmus.detectors import Detector
from litmus.detectors.base import Unseen
from litmus.detectors.learning_curve import CurvePoint, LearningCurve
from litmus.errors import UsageError
from litmus.metrics import auc, auc_interval, paired_auc_difference
from litmus.zoo import Zoo

__all__ = ["learning_curve", "learning_shares"]

_FEWEST: Final = 24
"""Models of the smallest zoo on the curve: fewer hardly teach anything."""
_HALVINGS: Final = 4


def learning_shares(num_models: int) -> tuple[float, ...]:
    """Return the shares of a zoo to fit on again, 1/2 and its halves, the smallest first.

    Their sum is below 1, and so is what they cost, in fits of the whole; empty for a zoo that is
    too small for two points.
    """
    halves = [0.5**n for n in range(1, _HALVINGS + 1) if num_models * 0.5**n >= _FEWEST]
    return tuple(reversed(halves))


def learning_curve(
    zoo: Zoo,
    detector: Detector,
    shares: Sequence[float],
    *,
    seed: int = 0,
    on_progress: Callable[..., None] = lambda *report: None,
) -> LearningCurve:
    """Fit a detector's kind again on nested `shares` of the zoo that it was just fitted on.

    The shares grow; `learning_shares` gives some. Members keep their folds: each judges the models
    that it has not seen at any size. Epochs stay as they are, so that a part of the zoo also means
    fewer steps. The test split is not touched. `on_progress` hears what fits report. Raises
    UsageError where the detector was read from a file or learns nothing, or without shares.
    """
    if detector.unseen is None or not shares:
        raise UsageError(
            "there is no learning curve",
            expected=f"a detector that was just fitted on {2 * _FEWEST} models or more",
            got=f"{len(zoo.split('train'))} models",
        )
    heard = list(detector.relearn(zoo, shares, on_progress=on_progress))
    return _curve([*shares, 1.0], [*heard, detector.unseen], seed)


def _curve(shares: Sequence[float], heard: Sequence[Unseen], seed: int) -> LearningCurve:
    full = heard[-1]
    triggers = np.array([entry.trigger_id for entry in full.entries])
    points = []
    for share, unseen in zip(shares, heard, strict=True):
        interval = auc_interval(unseen.scores, full.backdoored, triggers, seed=seed)
        points.append(
            CurvePoint(
                num_models=round(share * len(full.entries)),
                auc=auc(unseen.scores, full.backdoored),
                auc_low=interval.low,
                auc_high=interval.high,
                interval=interval.method,
            )
        )
    return LearningCurve(
        points=tuple(points),
        last_doubling=paired_auc_difference(
            full.scores, heard[-2].scores, full.backdoored, triggers, seed=seed
        ),
        n_clean=int((~full.backdoored).sum()),
        n_backdoored=int(full.backdoored.sum()),
    )
