"""Detectors that read a few numbers of a model and learn from a zoo which ones are suspicious."""

from __future__ import annotations

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement, Unseen
from litmus.detectors.calibration import UNCALIBRATED
from litmus.errors import DetectorError, ModelError, UsageError
from litmus.models import InputSpec, Model

if TYPE_CHECKING:
    from litmus.datasets import Split
    from litmus.fitting import FittedHead
    from litmus.zoo import Zoo, ZooEntry

__all__ = ["Head", "NoSettings", "StatisticDetector"]

_WEIGHT_DECAY: Final = 0.1


@cache
def _code_sha256(module: str) -> str:
    """The digest of a detector's module and of the loops that it may run."""
    import litmus.inversion

    files = [Path(module), *sorted(Path(str(litmus.inversion.__file__)).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Of statistics that leave nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A member: ``weight (f,) @ (statistics - mean (f,)) / std (f,) + bias ()``."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def measure(self, statistics: NDArray[np.float64]) -> tuple[float, float]:
        """Return (log-odds of a backdoor, scope distance)."""
        standardised = (statistics - self.mean) / self.std
        log_odds = self.weight @ standardised + self.bias
        return float(log_odds), float(np.sqrt(np.mean(standardised**2)))


@dataclass(frozen=True, kw_only=True)
class StatisticDetector(Detector):
    """A logistic head on statistics that do not depend on the order of the classes.

    A subclass has `statistics`, and `settings_type` where there is something to choose;
    `settings` are those, in full. Where `monotone`, a head takes every statistic as evidence of a
    backdoor or as none, never of the contrary. Member i is fitted on the same models as member i of
    a pattern detector with the same zoo and seed, or rather on those and on the ones by which that
    chooses its epoch: both have held out the same fold.
    """

    statistic_names: ClassVar[tuple[str, ...]]
    monotone: ClassVar[bool] = False
    num_models: ClassVar[int] = 0
    """Of each kind, that `fit` reads by default; 0 means all."""
    remembers: ClassVar[bool] = True
    """Whether a model takes long to read, so that its numbers are kept beside the zoo."""

    settings: Mapping[str, Any]
    heads: Sequence[Head] = ()

    @classmethod
    def settings_type(cls) -> type[Any]:
        """Return the dataclass of the statistics' settings."""
        return NoSettings

    def learned(self, zoo: Zoo, *, seed: int) -> Self:
        """Return the detector with what its statistics have to learn from a zoo first: nothing."""
        return self

    def settled(
        self, rows: NDArray[np.float64], backdoored: NDArray[np.bool_]
    ) -> tuple[Self, NDArray[np.float64]]:
        """Return the detector with what it learns from what was read (n, ...) of all models.

        And the statistics (n, f) of these models; by default that is what was read.
        """
        return self, rows

    @abstractmethod
    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return the numbers of `statistic_names`, (f,), of order 1 for most models.

        What is not finite is an error of the model, which `measure` raises.
        """

    @classmethod
    def uncalibrated(cls, input_spec: InputSpec, **options: Any) -> Self:
        """Return a detector without heads; `options` replace the statistics' default settings."""
        return cls(
            input_spec=input_spec,
            settings=cls.resolved(cls.settings_type(), options),
            calibration=UNCALIBRATED,
            scope={},
            held_out={},
        )

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        members: int = 5,
        folds: str = "twin",
        seed: int = 0,
        weight_decay: float = _WEIGHT_DECAY,
        models: int | None = None,
        images: Split | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        **settings: Any,
    ) -> Self:
        """Fit on a zoo's training split, and calibrate on models that members had not seen.

        `models` clean and as many backdoored ones are read, drawn by seed, 0 means all. `images`
        are clean ones for those that need some, by default the test images of the zoo's data set.
        `settings` are those of the statistics. The test split is not touched. Raises UsageError
        for an impossible setting, ZooError where there are too few models.
        """
        from litmus.fitting import assign_folds, check_members, draw_models, fit_heads

        check_members(members)
        models = cls.num_models if models is None else models
        if models < 0:
            raise UsageError("models is impossible", expected="0 for all, or more", got=models)
        if not weight_decay > 0:
            raise UsageError("weight_decay is impossible", expected="> 0", got=weight_decay)
        unfitted: Self = cls.uncalibrated(zoo.input_spec, **settings)
        if unfitted.lacks_images:
            clean = zoo.load_dataset().test if images is None else images
            unfitted = unfitted.with_images(clean, seed=seed)
        unfitted = unfitted.learned(zoo, seed=seed)
        training = zoo.split("train")
        assigned, _ = assign_folds(training, seed, by=folds)
        drawn = draw_models(training, assigned, models, seed)
        entries = [training[place] for place in drawn]
        backdoored = np.array([entry.backdoored for entry in entries])
        unfitted, rows = unfitted.settled(unfitted._read_all(entries, on_progress), backdoored)
        fitted = fit_heads(
            rows,
            backdoored,
            assigned[drawn],
            members=members,
            weight_decay=weight_decay,
            monotone=cls.monotone,
        )
        chosen = {"models": models, "weight_decay": weight_decay, **unfitted.settings}
        return unfitted._calibrated(zoo, entries, rows, fitted, chosen, folds, seed)

    def relearn(
        self,
        zoo: Zoo,
        shares: Sequence[float],
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Unseen]:
        """Read all models once, and fit heads on shares of them; see `Detector.relearn`."""
        from litmus.fitting import assign_folds, draw_models, fit_heads, seen_models

        if not self.heads:
            yield from super().relearn(zoo, shares)  # raises
        training, seed, members = zoo.split("train"), self.scope["seed"], len(self.heads)
        folds, validating = assign_folds(training, seed, by=self.scope["folds"])
        drawn = draw_models(training, folds, self.scope["settings"]["models"], seed)
        entries = [training[place] for place in drawn]
        assigned, validates = folds[drawn], validating[drawn]
        backdoored = np.array([entry.backdoored for entry in entries])
        _, rows = self.settled(self._read_all(entries, on_progress), backdoored)
        for share in shares:
            fitted = fit_heads(
                rows,
                backdoored,
                assigned,
                members=members,
                weight_decay=self.scope["settings"]["weight_decay"],
                monotone=self.monotone,
                seen=[
                    seen_models(entries, assigned != member, validates, seed, share)
                    for member in range(members)
                ],
            )
            yield _unseen(entries, rows, fitted, _heads(fitted))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return members, folds, models, the head's weight decay, the statistics' settings."""
        from litmus.fitting import FOLDS

        return {
            "members": FOLDS,
            "folds": "twin",
            "models": cls.num_models,
            "weight_decay": _WEIGHT_DECAY,
            **cls.resolved(cls.settings_type(), {}),
        }

    def _read_all(
        self, entries: Sequence[ZooEntry], on_progress: Callable[[int, int], None]
    ) -> NDArray[np.float64]:
        rows = []
        for done, entry in enumerate(entries, start=1):
            rows.append(self._read_entry(entry))
            on_progress(done, len(entries))
        return np.array(rows)

    def _read_entry(self, entry: ZooEntry) -> list[float]:
        from litmus.formats import zoo_file
        from litmus.zoo.measured import remembered

        def read() -> list[float]:
            return [float(number) for number in self._raw(zoo_file.load(entry.path))]

        return remembered(entry, self._key(), read) if self.remembers else read()

    def _statistics_of(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the statistics that what is kept of a model tells a settled detector."""
        return raw

    def known_statistics(self, entry: ZooEntry) -> NDArray[np.float64]:
        """Return the numbers of `statistic_names` of a zoo's model, read once and then kept."""
        return self._statistics_of(np.array(self._read_entry(entry)))

    def measure_entry(self, entry: ZooEntry) -> Measurement:
        """Let each member judge the statistics of a zoo's model, read once and then kept."""
        if not self.heads:
            return super().measure_entry(entry)
        return self._judged(self._checked(self.known_statistics(entry)))

    def _key(self) -> dict[str, Any]:
        """All that the statistics of a model depend on: settings, and the code that takes them."""
        return {
            "detector": self.name,
            "settings": dict(self.settings),
            "code": _code_sha256(inspect.getfile(type(self))),
        }

    def _calibrated(
        self,
        zoo: Zoo,
        entries: Sequence[ZooEntry],
        rows: NDArray[np.float64],
        fitted: Sequence[FittedHead],
        settings: Mapping[str, Any],
        folds: str,
        seed: int,
    ) -> Self:
        from litmus.fitting import describe_scope, held_out_auc

        heads = _heads(fitted)
        unseen = _unseen(entries, rows, fitted, heads)
        return replace(
            self,
            heads=heads,
            calibration=unseen.calibration(),
            scope={
                **describe_scope(zoo, entries, settings, seed),
                "folds": folds,
                "num_training": [f.num_training for f in fitted],
            },
            held_out=held_out_auc(unseen.scores, unseen.entries, seed),
            unseen=unseen,
        )

    def measure(self, model: Model) -> Measurement:
        """Read the statistics, and let each member judge them."""
        self.check_shape(model)
        return self._judged(self._read(model))

    def _judged(self, row: NDArray[np.float64]) -> Measurement:
        pairs = [head.measure(row) for head in self.heads]
        return Measurement(
            member_scores=[score for score, _ in pairs],
            scope_distance=max(distance for _, distance in pairs),
        )

    def _read(self, model: Model) -> NDArray[np.float64]:
        """Return the statistics; raises ModelError where one is no number."""
        with np.errstate(all="ignore"):
            row = self.statistics(model)
        return self._checked(row)

    def _raw(self, model: Model) -> NDArray[np.float64]:
        """Return what is kept of a zoo model, of which `settled` makes statistics."""
        return self._read(model)

    def _checked(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        names = zip(self.statistic_names, np.isfinite(row), strict=True)
        broken = [name for name, finite in names if not finite]
        if broken:
            raise ModelError(
                "the model's weights or outputs are not numbers",
                expected=f"finite statistics for {self.name}",
                got=f"NaN or infinity in {', '.join(broken[:4])}",
            )
        return row

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every member's arrays, stacked."""
        names = Head.__dataclass_fields__
        return {name: np.stack([getattr(head, name) for head in self.heads]) for name in names}

    def options(self) -> dict[str, Any]:
        """Return the settings of the statistics."""
        return {"settings": dict(self.settings)}

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read a detector; raises DetectorError where arrays are missing or do not fit.

        Settings are looked at when they are used.
        """
        common = cls.common_fields(arrays, header)
        try:
            stacked = {name: arrays[name] for name in Head.__dataclass_fields__}
            settings = dict(header["options"]["settings"])
        except (KeyError, TypeError, ValueError) as fault:
            raise DetectorError(f"malformed: {fault} is missing") from fault
        members = len(stacked["bias"])
        wanted = (members, len(cls.statistic_names))
        shapes = {name: stacked[name].shape for name in ("mean", "std", "weight")}
        if set(shapes.values()) != {wanted} or stacked["bias"].shape != (members,) or not members:
            raise DetectorError(
                "the heads are of another shape than this version's statistics",
                expected=wanted,
                got=shapes,
            )
        heads = [
            Head(**{name: array[i] for name, array in stacked.items()}) for i in range(members)
        ]
        return cls(heads=heads, settings=settings, **common)


def _heads(fitted: Sequence[FittedHead]) -> list[Head]:
    names = Head.__dataclass_fields__
    return [Head(**{name: getattr(f, name) for name in names}) for f in fitted]


def _unseen(
    entries: Sequence[ZooEntry],
    rows: NDArray[np.float64],
    fitted: Sequence[FittedHead],
    heads: Sequence[Head],
) -> Unseen:
    """Let each member judge the models that it has not seen."""
    held_out = [f.held_out for f in fitted]
    measured = [
        head.measure(rows[i]) for head, own in zip(heads, held_out, strict=True) for i in own
    ]
    return Unseen.of(entries, held_out, measured)
