"""From scores to answers: cross-conformal p-values, a temperature, a limit of scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    The models may be of several populations, numbered by `groups` (n,): those of one zoo each, say.
    The promise then holds for each of them by itself, for whichever a new model is like.
    """

    scores: NDArray[np.float64]
    members: NDArray[np.int64]
    temperature: float
    scope_limit: float
    groups: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.groups):
            object.__setattr__(self, "groups", np.zeros(len(self.scores), dtype=np.int64))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of models of each population."""
        return tuple(np.bincount(self.groups, minlength=1).tolist())

    @property
    def smallest_p_value(self) -> float:
        """1 / (n + 1), n of the smallest population: what the number of its models allows."""
        return 1 / (min(self.sizes) + 1)

    def p_value(self, member_scores: Sequence[float]) -> float:
        """Return the cross-conformal p-value (Vovk 2015) of a model's scores, one a member.

        ``(1 + #{clean models whose score by their member >= the new model's by that member})
        / (n + 1)``: how often a clean model looks at least as suspicious. Of several populations'
        p-values the largest, which is right for a model of any of them.
        """
        return float(self._p_values(member_scores).max())

    def deciding(self, member_scores: Sequence[float]) -> Calibration:
        """Return the calibration by the one population whose p-value is the largest."""
        chosen = self.groups == self._p_values(member_scores).argmax()
        return replace(
            self,
            scores=self.scores[chosen],
            members=self.members[chosen],
            groups=np.zeros(int(chosen.sum()), dtype=np.int64),
        )

    def _p_values(self, member_scores: Sequence[float]) -> NDArray[np.float64]:
        new = np.asarray(member_scores, dtype=np.float64)[self.members]
        above = np.bincount(self.groups[self.scores >= new], minlength=len(self.sizes))
        p_values: NDArray[np.float64] = (1 + above) / (1 + np.array(self.sizes))
        return p_values

    def with_population(
        self,
        scores: NDArray[np.float64],
        members: NDArray[np.int64],
        scope_distances: NDArray[np.float64],
    ) -> Calibration:
        """Return the calibration with clean models of one more population, all (n,).

        Models as far out as these are in scope then.
        """
        limit = _SCOPE_MARGIN * float(np.max(scope_distances))
        return replace(
            self,
            scores=np.concatenate([self.scores, scores]),
            members=np.concatenate([self.members, members]),
            groups=np.concatenate([self.groups, np.full(len(scores), len(self.sizes))]),
            scope_limit=max(self.scope_limit, limit),
        )

    def probability(self, score: float) -> float:
        """Return the temperature-scaled probability of a backdoor at even prior odds."""
        return float(0.5 * (1 + np.tanh(0.5 * score / self.temperature)))

    def threshold(self, fpr: float) -> float:
        """Return the score above which a model is suspicious at this false-positive rate.

        Exact for one member; for several the p-value decides, and this is for pictures.
        """
        highest = -np.inf
        for group, size in enumerate(self.sizes):
            rank = int(np.floor(fpr * (size + 1) + 1e-9))  # 0.29 * 100 is 28.99...
            ordered = np.sort(self.scores[self.groups == group])[::-1]
            highest = max(highest, float(ordered[max(rank, 1) - 1]))
        return highest

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for a detector file."""
        own = {"calibration.scores": self.scores, "calibration.members": self.members}
        return own if len(self.sizes) == 1 else {**own, "calibration.groups": self.groups}

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
        groups = arrays.get("calibration.groups", np.zeros(len(scores), dtype=np.int64))
        if groups.shape != scores.shape or groups.dtype.kind not in "iu":
            raise ValueError("populations that are no numbers, one a score")
        inside = not groups.size or 0 <= groups.min() <= groups.max() < len(groups)
        if not (inside and np.bincount(groups.astype(np.int64)).all()):
            raise ValueError("populations without a model")
        if not (0 < temperature < np.inf and 0 <= scope_limit < np.inf):
            raise ValueError("a temperature or a limit of scope that is no number above 0")
        return cls(
            scores=scores,
            members=members,
            groups=groups.astype(np.int64),
            temperature=temperature,
            scope_limit=scope_limit,
        )


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
