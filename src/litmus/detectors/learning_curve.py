"""What a detector's header says of how it does against how many models it was fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from litmus.errors import DetectorError
from litmus.metrics import PairedDifference

__all__ = ["CurvePoint", "LearningCurve", "Trend"]

Trend = Literal["rising", "chance", "saturated", "flat", "unclear"]

_SATURATED: Final = 0.995
_FLAT: Final = 0.02
"""A doubling that brings at most so much AUC is not worth its models."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """AUC, with its 95 % interval, of a detector fitted on a zoo of `num_models` models."""

    num_models: int
    auc: float
    auc_low: float
    auc_high: float
    interval: str


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """AUC against the size of the zoo, each on the same held-out models.

    `points` grow in size, the last is the detector itself. `last_doubling` is what the last one
    has more than the one before, by a paired bootstrap over the held-out models; how another draw
    of training models would have done is not in it.
    """

    points: tuple[CurvePoint, ...]
    last_doubling: PairedDifference
    n_clean: int
    n_backdoored: int

    @property
    def trend(self) -> Trend:
        """What the curve says: `rising` or `flat` only where the intervals show it."""
        last = self.points[-1]
        if last.auc >= _SATURATED:
            return "saturated"
        if self.last_doubling.low > 0:
            return "rising"
        if last.auc_low <= 0.5:
            return "chance"
        return "flat" if self.last_doubling.high < _FLAT else "unclear"

    def models_for_half_the_error(self) -> float:
        """Return how many models would halve 1 - AUC, were it to go on falling as a power law.

        The exponent is fitted to all points by least squares on logarithms; infinity where the
        error does not fall.
        """
        pairs = self.n_clean * self.n_backdoored
        sizes = np.log([point.num_models for point in self.points])
        # An AUC of 1 is one that so many pairs can't tell from 1.
        errors = np.log([max(1 - point.auc, 0.5 / pairs) for point in self.points])
        away = sizes - sizes.mean()
        exponent = -float(away @ errors / (away @ away))
        doublings = 1 / exponent if exponent > 0 else math.inf
        return self.points[-1].num_models * (2.0**doublings if doublings < 64 else math.inf)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, as a detector's header holds them."""
        return {
            **asdict(self),
            "points": [asdict(point) for point in self.points],
            "trend": self.trend,
        }

    @classmethod
    def of(cls, held_out: Mapping[str, Any]) -> LearningCurve | None:
        """Return the curve in a detector's `held_out`, or None where there is none.

        Raises DetectorError where it is malformed.
        """
        value = held_out.get("learning_curve")
        if value is None:
            return None
        try:
            return cls(
                points=tuple(CurvePoint(**point) for point in value["points"]),
                last_doubling=PairedDifference(**value["last_doubling"]),
                n_clean=int(value["n_clean"]),
                n_backdoored=int(value["n_backdoored"]),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise DetectorError(f"malformed learning curve: {fault}") from fault
