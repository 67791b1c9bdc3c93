"""Detectors that feed fixed images to a model: litmus patterns, and random noise in their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement, Unseen
from litmus.errors import DetectorError, ModelError
from litmus.features import (
    FEATURES,
    HEADS,
    POOLINGS,
    Features,
    HeadName,
    Parameters,
    Pooling,
    head_logits,
    scaled_per_model,
)
from litmus.models import Images, LogProbs, Model, log_probabilities

if TYPE_CHECKING:
    from litmus.fitting import PatternSettings, Population
    from litmus.fitting.ensemble import FittedMember, MemberReport
    from litmus.zoo import Zoo, ZooEntry

__all__ = ["Member", "NoiseDetector", "PatternDetector", "ULPDetector"]

_OPTIONS: Final[Mapping[str, Collection[Any]]] = {
    "pooling": POOLINGS,
    "features": FEATURES,
    "head": HEADS,
    "scale_per_model": (False, True),
}
"""What a file's header says of how answers are read, and what it may say."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Patterns (m, c, h, w) in [0, 1] and the parameters of the head that was learned with them.

    The head's parameters are named in `litmus.features.HEADS`; row 1 of its logits is
    "backdoored".
    """

    patterns: Images
    parameters: Parameters

    def measure(self, answers: LogProbs, head: HeadName, pooling: Pooling) -> tuple[float, float]:
        """Return (log-odds of a backdoor, scope distance) from the answers (m, k)."""
        logits, standardised = head_logits(head, self.parameters, answers, pooling)
        return float(logits[1] - logits[0]), float(np.sqrt(np.mean(standardised**2)))


@dataclass(frozen=True, kw_only=True)
class PatternDetector(Detector):
    """An ensemble of members, each with its own patterns; the score is their mean log-odds."""

    learns_patterns: ClassVar[bool]

    members: Sequence[Member]
    pooling: Pooling = "concatenate"
    features: Features = "log_probs"
    head: HeadName = "linear"
    scale_per_model: bool = False

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        members: int = 5,
        folds: str = "twin",
        seed: int = 0,
        initial: Images | None = None,
        on_progress: Callable[[MemberReport], None] = lambda report: None,
        **settings: Any,
    ) -> Self:
        """Fit on a zoo's training split, and calibrate on models that members had not seen.

        `settings` are those of `litmus.fitting.PatternSettings`; the patterns begin as `initial`
        (m, c, h, w), by default as noise. What a member does not see is a fifth of the twins, or
        with `folds` = "architecture" of the families of networks, so that the calibration is by
        networks of another kind. The test split is not touched.
        Raises UsageError for an impossible setting, ZooError where there are too few models.
        """
        from litmus.fitting import PatternSettings, fit_members

        entries = zoo.split("train")
        chosen = PatternSettings(learn_patterns=cls.learns_patterns, **settings)
        fitted = fit_members(
            entries,
            chosen,
            members=members,
            folds=folds,
            seed=seed,
            population=_population(zoo, entries),
            initial=initial,
            background=_background(zoo, chosen),
            on_progress=on_progress,
        )
        return cls._calibrated(zoo, entries, fitted, asdict(chosen), folds, seed)

    def relearn(
        self,
        zoo: Zoo,
        shares: Sequence[float],
        *,
        on_progress: Callable[[MemberReport], None] = lambda report: None,
    ) -> Iterator[Unseen]:
        """Fit patterns and heads on shares of the models; see `Detector.relearn`."""
        from litmus.fitting import PatternSettings, fit_members

        entries, settings = zoo.split("train"), PatternSettings(**self.scope["settings"])
        population, background = _population(zoo, entries), _background(zoo, settings)
        for share in shares:
            fitted = fit_members(
                entries,
                settings,
                members=len(self.members),
                folds=self.scope["folds"],
                seed=self.scope["seed"],
                share=share,
                population=population,
                background=background,
                on_progress=on_progress,
            )
            yield _unseen(entries, fitted, _members(fitted), asdict(settings))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the number of members, and the settings of `litmus.fitting.PatternSettings`."""
        from litmus.fitting import FOLDS, PatternSettings

        settings = asdict(PatternSettings())
        del settings["learn_patterns"]  # the detector's kind says that
        return {"members": FOLDS, "folds": "twin", **settings}

    @classmethod
    def _calibrated(
        cls,
        zoo: Zoo,
        entries: Sequence[ZooEntry],
        fitted: Sequence[FittedMember],
        settings: Mapping[str, Any],
        folds: str,
        seed: int,
    ) -> Self:
        from litmus.fitting import describe_scope, held_out_auc

        members = _members(fitted)
        unseen = _unseen(entries, fitted, members, settings)
        return cls(
            input_spec=zoo.input_spec,
            members=members,
            pooling=settings["pooling"],
            features=settings["features"],
            head=settings["head"],
            scale_per_model=settings["scale_per_model"],
            calibration=unseen.calibration(),
            scope={
                **describe_scope(zoo, entries, settings, seed),
                "folds": folds,
                "num_training": [f.num_training for f in fitted],
                "validation_auc": [f.learned.validation_auc for f in fitted],
                "best_epoch": [f.learned.best_epoch for f in fitted],
            },
            held_out=held_out_auc(unseen.scores, unseen.entries, seed),
            unseen=unseen,
        )

    @property
    def num_patterns(self) -> int:
        """M, the number of patterns of each member."""
        return len(self.members[0].patterns)

    @property
    def queries(self) -> Images:
        """All members' patterns, (members * m, c, h, w): what a model is asked."""
        return np.concatenate([member.patterns for member in self.members])

    def queries_by_member(self) -> Sequence[Images]:
        """Return each member's patterns."""
        return [member.patterns for member in self.members]

    def measure(self, model: Model) -> Measurement:
        """Ask the model all patterns in one batch, and let each member read its answers."""
        outputs = model(self.queries)
        log_probs = log_probabilities(outputs, model.outputs)
        answers = log_probs if self.features == "log_probs" else self._raw(outputs, model)
        parts = answers.reshape(len(self.members), self.num_patterns, -1)
        if self.scale_per_model:
            parts = scaled_per_model(parts)
        pairs = [
            member.measure(part, self.head, self.pooling)
            for member, part in zip(self.members, parts, strict=True)
        ]
        return Measurement(
            member_scores=[score for score, _ in pairs],
            scope_distance=max(distance for _, distance in pairs),
            log_probs=log_probs.tolist(),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every member's arrays, stacked."""
        patterns = np.stack([member.patterns for member in self.members])
        return {"patterns": patterns} | {
            name: np.stack([member.parameters[name] for member in self.members])
            for name in HEADS[self.head]
        }

    def options(self) -> dict[str, Any]:
        """Return how answers are read."""
        return {name: getattr(self, name) for name in _OPTIONS}

    @classmethod
    def from_file(
        cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]
    ) -> PatternDetector:
        """Read a detector; raises DetectorError where arrays are missing or do not fit."""
        common = cls.common_fields(arrays, header)
        try:
            options = {name: header["options"][name] for name in _OPTIONS}
            for name, allowed in _OPTIONS.items():
                if options[name] not in allowed:
                    raise DetectorError("unknown option", got=f"{name} {options[name]}")
            patterns = arrays["patterns"]
            stacked = {name: arrays[name] for name in HEADS[options["head"]]}
        except (KeyError, TypeError) as fault:
            raise DetectorError(f"malformed: {fault} is missing") from fault
        if patterns.shape[2:] != common["input_spec"].image_shape:
            raise DetectorError(
                "the patterns have another shape than the header says",
                expected=common["input_spec"].image_shape,
                got=patterns.shape[2:],
            )
        members = [
            Member(
                patterns=patterns[i], parameters={name: array[i] for name, array in stacked.items()}
            )
            for i in range(len(patterns))
        ]
        return cls(members=members, **options, **common)

    @staticmethod
    def _raw(outputs: NDArray[Any], model: Model) -> NDArray[np.float64]:
        if model.outputs != "logits":
            raise ModelError("this detector reads raw logits", got=model.outputs)
        return np.asarray(outputs, dtype=np.float64)


def _population(zoo: Zoo, entries: Sequence[ZooEntry]) -> Population:
    from litmus.fitting import Population, Ranks

    return Population.load(entries, memory=zoo.memory, device=zoo.device, ranks=Ranks.current())


def _background(zoo: Zoo, settings: PatternSettings) -> NDArray[np.float32] | None:
    return zoo.load_dataset().background if settings.start == "background" else None


def _members(fitted: Sequence[FittedMember]) -> list[Member]:
    return [Member(patterns=f.learned.patterns, parameters=f.learned.parameters) for f in fitted]


def _unseen(
    entries: Sequence[ZooEntry],
    fitted: Sequence[FittedMember],
    members: Sequence[Member],
    settings: Mapping[str, Any],
) -> Unseen:
    """Let each member read the answers of the models that it has not seen."""
    return Unseen.of(
        entries,
        [f.held_out for f in fitted],
        [
            member.measure(answers, settings["head"], settings["pooling"])
            for member, f in zip(members, fitted, strict=True)
            for answers in f.answers
        ],
    )


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
