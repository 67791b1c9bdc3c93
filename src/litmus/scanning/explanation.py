"""What an explanation of a model is, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.outliers import CONSISTENCY
from litmus.metrics import binomial_interval
from litmus.models import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from litmus.scanning.results import Sandbox
    from litmus.scanning.targets import Address


__all__ = ["ANOMALOUS", "Explanation", "Flips", "PairTrigger", "Subject", "Trigger"]

Pixels = NDArray[np.float32]
"""Values in [0, 1]."""

ANOMALOUS: Final = 2.0
"""An index above this is an outlier (Wang et al. 2019, IV.B)."""
_CLEARLY: Final = 0.9
"""Above this must the interval of a pair's flip rate lie: a small patch that always works."""
_FEWEST: Final = 4
"""Of fewer norms no median tells anything."""


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Of `images` that were held back, and are not of the target anyway, `turned` become it.

    `before` and `after` (e, c, h, w) are some of them without and with the trigger, `answers` the
    class that the model gives to both.
    """

    images: int
    turned: int
    before: Pixels = field(repr=False)
    after: Pixels = field(repr=False)
    answers: tuple[tuple[int, int], ...]

    @property
    def rate(self) -> float:
        """The share that is turned; 0 of none."""
        return self.turned / max(1, self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate."""
        return binomial_interval(self.turned, self.images) if self.images else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger for images of any class: mask (1, h, w) of this l1 `norm`, pattern (c, h, w)."""

    target_class: int
    norm: float
    mask: Pixels = field(repr=False)
    pattern: Pixels = field(repr=False)
    flips: Flips


@dataclass(frozen=True, kw_only=True)
class PairTrigger:
    """The patch (c, size, size) that leads images of one class to another best."""

    source_class: int
    target_class: int
    patch: Pixels = field(repr=False)
    flips: Flips

    @property
    def works(self) -> bool:
        """Whether the whole interval of its flip rate is above 0.9."""
        return self.flips.interval[0] > _CLEARLY


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that can be explained; `outputs` are its own numbers for the classes."""

    input_spec: InputSpec
    classes: tuple[str, ...]
    outputs: tuple[int, ...]
    notes: tuple[str, ...]
    sha256: str
    external_sha256: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What trigger inversion found in one model.

    `triggers` are those of single target classes, in their order, `pair` is a patch from one class
    to another; `left_out` says what was not done, and why. `classes` are the model's own names or
    the images', `right` of `total` clean images are of the class that the model says,
    `per_class` are the images of each class to optimise on and those held back. `sandbox` is what
    the model's processes were held by.
    """

    path: Path | Address
    subject: Subject
    classes: tuple[str, ...]
    triggers: tuple[Trigger, ...]
    pair: PairTrigger | None
    left_out: tuple[str, ...]
    right: int
    total: int
    per_class: tuple[int, int]
    seconds: float
    sandbox: Sandbox | None = None

    @property
    def norms(self) -> NDArray[np.float64]:
        """The masks' l1 norms in pixels (t,), in the order of `triggers`."""
        return np.array([trigger.norm for trigger in self.triggers])

    @property
    def smallest(self) -> Trigger | None:
        """The trigger of the class that is easiest to reach."""
        return min(self.triggers, key=lambda trigger: trigger.norm, default=None)

    @property
    def anomaly_index(self) -> float | None:
        """How far the smallest norm lies below the median, in scaled median absolute deviations.

        None of fewer than four classes, of which no median tells anything.
        """
        if len(self.triggers) < _FEWEST:
            return None
        away = np.median(self.norms) - self.norms
        deviation = CONSISTENCY * float(np.median(np.abs(away)))
        return float(away.max()) / max(deviation, 1e-9)

    @property
    def standing_out(self) -> Trigger | None:
        """The trigger of smallest norm, if that is an outlier: Neural Cleanse's target class."""
        index = self.anomaly_index
        return self.smallest if index is not None and index > ANOMALOUS else None

    @property
    def likely_target(self) -> int | None:
        """The likely target class: the pair's where its patch works, or else the masks'."""
        if self.pair is not None and self.pair.works:
            return self.pair.target_class
        return self.standing_out.target_class if self.standing_out else None

    @property
    def agreement(self) -> float:
        """The share of the clean images that the model has right."""
        return self.right / max(1, self.total)
