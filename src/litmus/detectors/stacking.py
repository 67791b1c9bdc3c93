"""Stacked generalisation (Wolpert 1992) of detectors that were fitted in the same folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Unseen
from litmus.detectors.calibration import Calibration
from litmus.detectors.effort import Effort, reaches
from litmus.errors import DetectorError

__all__ = ["Combination", "askable", "combined", "possible_sets", "stacked"]

_WITHIN: Final = 1.0
"""A part's scope distance is counted in its own limits."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How one set of parts is read: ``weights (p,) @ log-odds (p,) + bias``, and calibrated.

    `held_out` is its AUC on models that the parts' members had not seen, and on how many.
    """

    weights: NDArray[np.float64]
    bias: float
    calibration: Calibration
    held_out: Mapping[str, Any]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for a detector file."""
        return {"weights": self.weights, **self.calibration.arrays()}

    def to_json(self) -> dict[str, Any]:
        """Return the rest for a detector file's header."""
        return {
            "bias": self.bias,
            "calibration": self.calibration.to_json(),
            "held_out": dict(self.held_out),
        }

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read what `arrays` and `to_json` wrote; raises KeyError or TypeError where it can't."""
        return cls(
            weights=arrays["weights"],
            bias=float(header["bias"]),
            calibration=Calibration.from_file(arrays, header["calibration"]),
            held_out=dict(header["held_out"]),
        )


def askable(parts: Mapping[str, Detector], *, effort: Effort, images: bool) -> tuple[str, ...]:
    """Return the parts that an effort asks, and that do without what there is not."""
    return tuple(
        part
        for part, detector in parts.items()
        if reaches(effort, detector.effort) and (images or not detector.needs_images)
    )


def possible_sets(parts: Mapping[str, Detector]) -> list[tuple[str, ...]]:
    """Return every set of parts that a model may permit: those that need nothing are in all."""
    always = {
        part
        for part, detector in parts.items()
        if not (detector.needs_weights or detector.needs_gradients or detector.needs_images)
    }
    subsets = (chosen for size in range(len(parts)) for chosen in combinations(parts, size + 1))
    return [chosen for chosen in subsets if always <= set(chosen)]


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """A logistic regression of p parts: `weights` (p,), `bias`, and what they say together."""

    weights: NDArray[np.float64]
    bias: float
    unseen: Unseen


def stacked(heard: Sequence[Unseen | None], limits: Sequence[float]) -> Stacked:
    """Fit a stack on the models that all parts have read; `limits` are those of parts' scopes.

    Raises DetectorError where parts were not fitted in the same folds.
    """
    from litmus.fitting import stack

    aligned = _aligned(heard)
    rows = np.stack([unseen.scores for unseen in aligned], axis=1)
    weights, bias = stack(rows, aligned[0].backdoored)
    distances = [unseen.distances / limit for unseen, limit in zip(aligned, limits, strict=True)]
    together = replace(
        aligned[0], scores=rows @ weights + bias, distances=np.max(distances, axis=0)
    )
    return Stacked(weights=weights, bias=bias, unseen=together)


def combined(parts: Mapping[str, Detector], seed: int) -> tuple[Combination, Unseen]:
    """Return a combination, fitted on the models that all its parts have read, and what it says.

    Raises DetectorError where parts were not fitted in the same folds.
    """
    from litmus.fitting import held_out_auc

    limits = [detector.calibration.scope_limit for detector in parts.values()]
    made = stacked([detector.unseen for detector in parts.values()], limits)
    combination = Combination(
        weights=made.weights,
        bias=made.bias,
        calibration=replace(made.unseen.calibration(), scope_limit=_WITHIN),
        held_out=held_out_auc(made.unseen.scores, made.unseen.entries, seed),
    )
    return combination, made.unseen


def _aligned(heard: Sequence[Unseen | None]) -> list[Unseen]:
    """What each part's members said of the models that all parts have read, in one order."""
    known = [unseen for unseen in heard if unseen is not None]
    if len(known) < len(heard):
        raise DetectorError("parts that were read from a file can't be fused anew")
    shared = set.intersection(*({entry.id for entry in unseen.entries} for unseen in known))
    order = [entry.id for entry in known[0].entries if entry.id in shared]
    aligned = [unseen.of_models(order) for unseen in known]
    if any((unseen.members != aligned[0].members).any() for unseen in aligned):
        raise DetectorError("parts that were not fitted in the same folds")
    return aligned
