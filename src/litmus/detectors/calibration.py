"""From scores to answers: cross-conformal p-values, a temperature, a limit of scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["UNCALIBRATED", "Calibration", "calibrate", "fit_temperature"]

_SCOPE_MARGIN: Final = 1.5
"""A model is out of scope when it lies so many times farther out than any zoo model did."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a detector's members said of clean models that they had not seen.

    `scores` (n,) are clean models' scores, each by the member `members` (n,) that never saw it.
    `temperature` divides a score (log-odds) to make it a calibrated one; `scope_limit` is the
    largest scope distance that a verdict is given for.
    """

    scores: NDArray[np.float64]
    members: NDArray[np.int64]
    temperature: float
    scope_limit: float

    @property
    def smallest_p_value(self) -> float:
        """1 / (n + 1): what the number of calibration models allows."""
        return 1 / (len(self.scores) + 1)

    def p_value(self, member_scores: Sequence[float]) -> float:
        """Return the cross-conformal p-value (Vovk 2015) of a model's scores, one a member.

        ``(1 + #{clean models whose score by their member >= the new model's by that member})
        / (n + 1)``: how often a clean model looks at least as suspicious.
        """
        new = np.asarray(member_scores, dtype=np.float64)[self.members]
        return float((1 + (self.scores >= new).sum()) / (len(self.scores) + 1))

    def probability(self, score: float) -> float:
        """Return the temperature-scaled probability of a backdoor at even prior odds."""
        return float(0.5 * (1 + np.tanh(0.5 * score / self.temperature)))

    def threshold(self, fpr: float) -> float:
        """Return the score above which a model is suspicious at this false-positive rate.

        Exact for one member; for several the p-value decides, and this is for pictures.
        """
        rank = int(np.floor(fpr * (len(self.scores) + 1) + 1e-9))  # 0.29 * 100 is 28.99...
        return float(np.sort(self.scores)[::-1][max(rank, 1) - 1])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for a detector file."""
        return {"calibration.scores": self.scores, "calibration.members": self.members}

    def to_json(self) -> dict[str, float]:
        """Return the scalars for a detector file's header."""
        return {"temperature": self.temperature, "scope_limit": self.scope_limit}

    @classmethod
    def from_file(
        cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]
    ) -> Calibration:
        """Read what `arrays` and `to_json` wrote; raises ValueError where it is impossible."""
        scores, members = arrays["calibration.scores"], arrays["calibration.members"]
        temperature, scope_limit = float(header["temperature"]), float(header["scope_limit"])
        if scores.ndim != 1 or scores.shape != members.shape or not np.isfinite(scores).all():
            raise ValueError("calibration scores that are no list of numbers, one a member")
        if members.dtype.kind not in "iu" or (members.size and members.min() < 0):
            raise ValueError("members that are no numbers of members")
        if not (0 < temperature < np.inf and 0 <= scope_limit < np.inf):
            raise ValueError("a temperature or a limit of scope that is no number above 0")
        return cls(scores=scores, members=members, temperature=temperature, scope_limit=scope_limit)


UNCALIBRATED: Final = Calibration(
    scores=np.empty(0),
    members=np.empty(0, dtype=np.int64),
    temperature=1.0,
    scope_limit=float("inf"),
)
"""Of a detector that scores but has seen no clean model: no false-positive rate can be had."""


def calibrate(
    scores: ArrayLike, members: ArrayLike, backdoored: ArrayLike, scope_distances: ArrayLike
) -> Calibration:
    """Return the calibration from models scored by the member that never saw them, all (n,)."""
    values, bad = np.asarray(scores, dtype=np.float64), np.asarray(backdoored, dtype=bool)
    return Calibration(
        scores=values[~bad],
        members=np.asarray(members, dtype=np.int64)[~bad],
        temperature=fit_temperature(values, bad),
        scope_limit=_SCOPE_MARGIN * float(np.max(scope_distances)),
    )


def fit_temperature(scores: ArrayLike, backdoored: ArrayLike) -> float:
    """Return the T > 0 that minimises the cross-entropy of sigmoid(score / T) (Guo et al. 2017).

    The targets are Platt's (1999), (n + 1) / (n + 2) rather than 1 for n models of a kind, since
    otherwise perfect separation would end in probabilities of 0 and 1. Searched on a grid of
    0.01 to 1000, finer than what some hundred models can tell.
    """
    values, bad = np.asarray(scores, np.float64), np.asarray(backdoored, bool)
    target = np.where(bad, (bad.sum() + 1) / (bad.sum() + 2), 1 / ((~bad).sum() + 2))
    grid = np.geomspace(0.01, 1000, 800)
    scaled = values[None, :] / grid[:, None]
    losses = np.logaddexp(0, scaled).mean(axis=1) - (target * scaled).mean(axis=1)
    return float(grid[np.argmin(losses)])
