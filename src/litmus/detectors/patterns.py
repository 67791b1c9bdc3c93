"""Detectors that feed fixed images to a model: litmus patterns, and random noise in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement
from litmus.detectors.calibration import calibrate
from litmus.errors import DetectorError, ModelError
from litmus.features import FEATURES, POOLINGS, Features, Pooling, pool
from litmus.models import Images, LogProbs, Model, log_probabilities

if TYPE_CHECKING:
    from litmus.fitting.ensemble import FittedMember, MemberReport
    from litmus.zoo import Zoo, ZooEntry

__all__ = ["Member", "NoiseDetector", "PatternDetector", "ULPDetector"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """Patterns (m, c, h, w) in [0, 1] and the softmax head that was learned with them.

    The head is ``weight (2, f) @ (feature - mean (f,)) / std (f,) + bias (2,)``; row 1 is
    "backdoored".
    """

    patterns: Images
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def measure(self, answers: LogProbs, pooling: Pooling) -> tuple[float, float]:
        """Return (log-odds of a backdoor, scope distance) from the answers (m, k)."""
        feature = pool(answers[None], pooling)[0]
        standardised = (feature - self.mean) / self.std
        logits = self.weight @ standardised + self.bias
        return float(logits[1] - logits[0]), float(np.sqrt(np.mean(standardised**2)))


@dataclass(frozen=True, kw_only=True)
class PatternDetector(Detector):
    """An ensemble of members, each with its own patterns; the score is their mean log-odds."""

    learns_patterns: ClassVar[bool]

    members: Sequence[Member]
    pooling: Pooling = "concatenate"
    features: Features = "log_probs"

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        members: int = 5,
        seed: int = 0,
        start: Images | None = None,
        on_progress: Callable[[MemberReport], None] = lambda report: None,
        **settings: Any,
    ) -> Self:
        """Fit on a zoo's training split, and calibrate on models that members had not seen.

        `settings` are those of `litmus.fitting.PatternSettings`; the patterns begin as `start`
        (m, c, h, w), by default as noise. The test split is not touched.
        Raises UsageError for an impossible setting, ZooError where there are too few models.
        """
        from litmus.fitting import PatternSettings, fit_members

        entries = zoo.split("train")
        chosen = PatternSettings(learn_patterns=cls.learns_patterns, **settings)
        fitted = fit_members(
            entries, chosen, members=members, seed=seed, start=start, on_progress=on_progress
        )
        return cls._calibrated(zoo, entries, fitted, asdict(chosen), seed)

    @classmethod
    def _calibrated(
        cls,
        zoo: Zoo,
        entries: Sequence[ZooEntry],
        fitted: Sequence[FittedMember],
        settings: Mapping[str, Any],
        seed: int,
    ) -> Self:
        from litmus.fitting import describe_scope, held_out_auc

        members = [
            Member(**{name: getattr(f.learned, name) for name in Member.__dataclass_fields__})
            for f in fitted
        ]
        unseen = [entries[i] for f in fitted for i in f.held_out]
        measured = np.array(
            [
                member.measure(answers, settings["pooling"])
                for member, f in zip(members, fitted, strict=True)
                for answers in f.answers
            ]
        )
        index = np.repeat(np.arange(len(fitted)), [len(f.held_out) for f in fitted])
        backdoored = np.array([entry.backdoored for entry in unseen])
        return cls(
            input_spec=zoo.input_spec,
            members=members,
            pooling=settings["pooling"],
            features=settings["features"],
            calibration=calibrate(measured[:, 0], index, backdoored, measured[:, 1]),
            scope={
                **describe_scope(zoo, entries, settings, seed),
                "num_training": [f.num_training for f in fitted],
                "validation_auc": [f.learned.validation_auc for f in fitted],
                "best_epoch": [f.learned.best_epoch for f in fitted],
            },
            held_out=held_out_auc(measured[:, 0], unseen, seed),
        )

    @property
    def num_patterns(self) -> int:
        """M, the number of patterns of each member."""
        return len(self.members[0].patterns)

    @property
    def queries(self) -> Images:
        """All members' patterns, (members * m, c, h, w): what a model is asked."""
        return np.concatenate([member.patterns for member in self.members])

    def measure(self, model: Model) -> Measurement:
        """Ask the model all patterns in one batch, and let each member read its answers."""
        outputs = model(self.queries)
        log_probs = log_probabilities(outputs, model.outputs)
        answers = log_probs if self.features == "log_probs" else self._raw(outputs, model)
        pairs = [
            member.measure(part, self.pooling)
            for member, part in zip(self.members, np.split(answers, len(self.members)), strict=True)
        ]
        return Measurement(
            member_scores=[score for score, _ in pairs],
            scope_distance=max(distance for _, distance in pairs),
            log_probs=log_probs.tolist(),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every member's arrays, stacked."""
        names = Member.__dataclass_fields__
        return {name: np.stack([getattr(m, name) for m in self.members]) for name in names}

    def options(self) -> dict[str, Any]:
        """Return the pooling and the kind of features."""
        return {"pooling": self.pooling, "features": self.features}

    @classmethod
    def from_file(
        cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]
    ) -> PatternDetector:
        """Read a detector; raises DetectorError where arrays are missing or do not fit."""
        common = cls.common_fields(arrays, header)
        try:
            stacked = {name: arrays[name] for name in Member.__dataclass_fields__}
            options = header["options"]
            pooling, features = options["pooling"], options["features"]
        except (KeyError, TypeError) as fault:
            raise DetectorError(f"malformed: {fault} is missing") from fault
        if pooling not in POOLINGS or features not in FEATURES:
            raise DetectorError("unknown option", got=f"pooling {pooling}, features {features}")
        if stacked["patterns"].shape[2:] != common["input_spec"].image_shape:
            raise DetectorError(
                "the patterns have another shape than the header says",
                expected=common["input_spec"].image_shape,
                got=stacked["patterns"].shape[2:],
            )
        members = [
            Member(**{name: array[i] for name, array in stacked.items()})
            for i in range(len(stacked["patterns"]))
        ]
        return cls(members=members, pooling=pooling, features=features, **common)

    @staticmethod
    def _raw(outputs: NDArray[Any], model: Model) -> NDArray[np.float64]:
        if model.outputs != "logits":
            raise ModelError("this detector reads raw logits", got=model.outputs)
        return np.asarray(outputs, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ULPDetector(PatternDetector):
    """Universal Litmus Patterns (paper 3.3): patterns and head learned jointly."""

    name: ClassVar[str] = "ulp"
    learns_patterns: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class NoiseDetector(PatternDetector):
    """The paper's noise input (3.4.1): random pixels, and a head learned on the answers."""

    name: ClassVar[str] = "noise"
    learns_patterns: ClassVar[bool] = False
