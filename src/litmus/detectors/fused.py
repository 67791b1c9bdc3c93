"""Several detectors as one: whichever of them a model's file permits, stacked."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement, Unseen, joined
from litmus.detectors.calibration import Calibration
from litmus.detectors.effort import Effort, reaches
from litmus.detectors.stacking import Combination, askable, combined, possible_sets, stacked
from litmus.errors import DetectorError, ModelError, UnsupportedModelError, UsageError
from litmus.models import Images, Model

if TYPE_CHECKING:
    from litmus.datasets import Split
    from litmus.zoo import Zoo, ZooEntry

__all__ = ["FusedDetector"]

_PARTS: Final = (
    "ulp", "last_layer", "stamps", "trigger_search", "max_margin", "neural_cleanse"
)  # fmt: skip
_MODELS: Final[Mapping[str, int]] = {
    "trigger_search": 200,
    "max_margin": 100,
    "neural_cleanse": 40,
    "attack_based": 40,
}
"""Of each kind, that parts which take seconds to a minute a model read by default."""
_SEPARATOR: Final = "+"
_SHARED: Final = ("recipe", "triggers")
"""Long, and much the same for all parts: a header has it once."""


@dataclass(frozen=True, kw_only=True)
class FusedDetector(Detector):
    """Stacked detectors: a logistic regression on what their members say, see `stacking`.

    `parts` are detectors by name that were fitted in the same folds, so that member i of each has
    held out the same models. `combinations` has an entry for every set of parts that a model may
    permit; each is fitted and calibrated on the models that all of its parts read and their members
    had not seen. A part is asked where `asked_effort` reaches its own `effort`, one that
    needs images by class where `images` is set, too, one that takes gradients for its share of
    `seconds`. `calibration` and `held_out` are those of all parts that may be asked.
    """

    name: ClassVar[str] = "fused"
    takes_images: ClassVar[bool] = True

    parts: Mapping[str, Detector]
    combinations: Mapping[tuple[str, ...], Combination]
    asked_effort: Effort = "quick"
    images: bool = False
    seconds: float = math.inf

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        parts: str | Sequence[str] = _PARTS,
        members: int = 5,
        folds: str = "twin",
        seed: int = 0,
        images: Split | None = None,
        fitted_parts: FusedDetector | None = None,
        on_progress: Callable[..., None] = lambda *report: None,
        **settings: Any,
    ) -> Self:
        """Fit the parts on a zoo's training split, and stack them.

        Those that `fitted_parts` has are taken from there, and only calibrated on this zoo, which
        must not be the one that they were fitted on.

        `parts` are names, in a text joined by +. `settings` called `PART.NAME` are those of parts,
        the others the `ulp` part's. `images` are clean ones for parts that need some, by default
        the test images of the zoo's data set. The test split is not touched. Raises UsageError for
        an unknown part or setting, ZooError where there are too few models.
        """
        from litmus.detectors import DETECTORS

        chosen = parts.split(_SEPARATOR) if isinstance(parts, str) else list(parts)
        _check_parts(chosen)
        own = _by_part(chosen, settings)
        if images is None and any(DETECTORS[part].needs_images for part in chosen):
            images = zoo.load_dataset().test  # now: a data set that is missing is soon told
        fitted: dict[str, Detector] = {}
        for part in chosen:
            if fitted_parts is not None and part in fitted_parts.parts:
                known = fitted_parts.parts[part]
                if images is not None:
                    known = known.with_images(images, seed=seed)
                fitted[part] = known.calibrated_on(
                    zoo,
                    folds=folds,
                    seed=seed,
                    models=_only_models(part, own[part]),
                    on_progress=on_progress,
                )
                continue
            shared: dict[str, Any] = {
                "members": members,
                "folds": folds,
                "seed": seed,
                "on_progress": on_progress,
            }
            if DETECTORS[part].needs_images:
                shared["images"] = images
            fitted[part] = DETECTORS[part].fit(zoo, **shared, **own[part])
        known_scope: Mapping[str, Any] = {} if fitted_parts is None else fitted_parts.scope
        return cls._stacked(
            zoo, fitted, seed, {key: known_scope[key] for key in _SHARED if key in known_scope}
        )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the parts, the settings of `ulp`, and those of the others with their names."""
        from litmus.detectors import DETECTORS

        others = {
            f"{part}.{name}": value
            for part, kind in DETECTORS.items()
            if part not in ("ulp", "noise", cls.name)
            for name, value in {**kind.defaults(), **_default_models(part)}.items()
            if name not in ("members", "folds")
        }
        return {"parts": _SEPARATOR.join(_PARTS), **DETECTORS["ulp"].defaults(), **others}

    @classmethod
    def _stacked(
        cls, zoo: Zoo, fitted: Mapping[str, Detector], seed: int, shared: Mapping[str, Any]
    ) -> Self:
        made = {
            chosen: combined({part: fitted[part] for part in chosen}, seed)
            for chosen in possible_sets(fitted)
        }
        combinations = {chosen: combination for chosen, (combination, _) in made.items()}
        whole = askable(fitted, effort="quick", images=False) or tuple(fitted)
        return cls(
            input_spec=zoo.input_spec,
            parts=fitted,
            combinations=combinations,
            calibration=combinations[whole].calibration,
            scope={
                **shared,
                **fitted[whole[0]].scope,
                "parts": {
                    part: {k: v for k, v in detector.scope.items() if k not in _SHARED}
                    for part, detector in fitted.items()
                },
            },
            held_out=combinations[whole].held_out,
            unseen=made[whole][1],
        )

    def relearn(
        self,
        zoo: Zoo,
        shares: Sequence[float],
        *,
        on_progress: Callable[..., None] = lambda *report: None,
    ) -> Iterator[Unseen]:
        """Fit and stack the parts that may be asked on shares of the models; see `Detector`."""
        parts = [self.parts[part] for part in self.asked]
        limits = [part.calibration.scope_limit for part in parts]
        again = [part.relearn(zoo, shares, on_progress=on_progress) for part in parts]
        for heard in zip(*again, strict=True):
            yield stacked(heard, limits).unseen

    def _with_population(
        self,
        zoo: Zoo,
        clean: Sequence[ZooEntry],
        turns: NDArray[np.int64],
        on_progress: Callable[[int, int], None],
    ) -> Self:
        heard = {
            part: detector.hear(zoo, clean, on_progress) for part, detector in self.parts.items()
        }
        parts = {
            part: replace(detector, calibration=joined(detector.calibration, heard[part], turns))
            for part, detector in self.parts.items()
        }
        combinations = {}
        for chosen, each in self.combinations.items():
            # Distances are counted in the parts' own limits, which are wider now.
            limits = np.array([parts[part].calibration.scope_limit for part in chosen])
            asked = np.stack([heard[part] for part in chosen], axis=-1)
            own = asked[:, :-1] @ each.weights + each.bias
            far = (asked[:, -1] / limits).max(axis=1)
            calibration = joined(each.calibration, np.column_stack([own, far]), turns)
            combinations[chosen] = replace(each, calibration=calibration)
        made = replace(self, parts=parts, combinations=combinations)
        return made.at_effort(self.asked_effort, images=self.images, seconds=self.seconds)

    @property
    def asked(self) -> tuple[str, ...]:
        """The parts that a model may be asked."""
        return askable(self.parts, effort=self.asked_effort, images=self.images)

    @property
    def lacks_images(self) -> bool:
        """Whether a part that may be asked does."""
        return any(self.parts[part].lacks_images for part in self.asked)

    def with_images(self, images: Split, *, seed: int = 0) -> Self:
        """Return the detector with clean images for the parts that may be asked."""
        asked = self.asked
        given = {
            part: detector.with_images(images, seed=seed) if part in asked else detector
            for part, detector in self.parts.items()
        }
        return replace(self, parts=given)

    @property
    def wants_pictures(self) -> bool:
        """Whether a part that may be asked does."""
        return any(self.parts[part].takes_pictures for part in self.asked)

    def with_pictures(self, images: Images) -> Self:
        """Return the detector with pictures for the parts that take some."""
        given = {part: detector.with_pictures(images) for part, detector in self.parts.items()}
        return replace(self, parts=given)

    def at_effort(self, effort: Effort, *, images: bool = False, seconds: float = math.inf) -> Self:
        """Return the detector with all parts that an effort, and clean `images`, allow.

        Its `calibration` and `held_out` are those of all of them together. One that takes longer
        than its share of `seconds` is left out; that goes by an alarm, in a main thread only.
        """
        asked = askable(self.parts, effort=effort, images=images) or tuple(self.parts)
        combination = self.combinations[asked]
        return replace(
            self,
            asked_effort=effort,
            images=images,
            seconds=seconds,
            calibration=combination.calibration,
            held_out=combination.held_out,
        )

    def held_out_by_parts(self) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """Return each combination's held-out AUC."""
        return {chosen: each.held_out for chosen, each in self.combinations.items()}

    def measure(self, model: Model) -> Measurement:
        """Ask every part that the model permits; raises UnsupportedModelError where none can."""
        return self._fused(lambda part: part.measure(model))

    def measure_entry(self, entry: ZooEntry) -> Measurement:
        """Ask every part that a zoo's model permits; what takes long is read once and kept."""
        return self._fused(lambda part: part.measure_entry(entry))

    def _fused(self, ask: Callable[[Detector], Measurement]) -> Measurement:
        heard: dict[str, Measurement] = {}
        reasons = {}
        asked = self.asked
        for part, detector in self.parts.items():
            if part not in asked:
                reasons[part] = self._why_not(detector)
                continue
            try:
                with at_most(self._share(detector)):
                    heard[part] = ask(detector)
            except ModelError as fault:
                # What goes wrong on the way to gradients takes no other part's answer away.
                if not (isinstance(fault, UnsupportedModelError) or detector.needs_gradients):
                    raise
                reasons[part] = fault.reason
        if tuple(heard) not in self.combinations:
            raise UnsupportedModelError("no part can measure it", got="; ".join(reasons.values()))
        combination = self.combinations[tuple(heard)]
        rows = np.array([measurement.member_scores for measurement in heard.values()])
        return Measurement(
            member_scores=(combination.weights @ rows + combination.bias).tolist(),
            scope_distance=max(
                m.scope_distance / self.parts[part].calibration.scope_limit
                for part, m in heard.items()
            ),
            log_probs=next((m.log_probs for m in heard.values() if len(m.log_probs)), ()),
            parts=tuple(heard),
            left_out=reasons,
            evidence=next((m.evidence for m in heard.values() if m.evidence is not None), None),
        )

    def _share(self, part: Detector) -> float:
        """The seconds that a part may take."""
        slow = sum(self.parts[name].needs_gradients for name in self.asked)
        return self.seconds / slow if part.needs_gradients else math.inf

    def _why_not(self, part: Detector) -> str:
        missing = []
        if not reaches(self.asked_effort, part.effort):
            missing.append(f"--effort {part.effort}")
        if part.needs_images and not self.images:
            missing.append("clean images by class (--images)")
        return f"it needs {' and '.join(missing)}"

    def calibration_of(self, parts: Sequence[str]) -> Calibration:
        """Return the calibration of the parts that were asked; raises ValueError for no such."""
        return self._combination_of(parts).calibration

    def queries_by_member(self) -> Sequence[Images]:
        """Return the images of the first part that asks any, as `measure` does with answers."""
        asked = (detector.queries_by_member() for detector in self.parts.values())
        return next((queries for queries in asked if len(queries)), ())

    def notes_of(self, measurement: Measurement) -> tuple[str, ...]:
        """Say which parts were asked and how good they are together, and which not and why."""
        held = self._combination_of(measurement.parts).held_out
        asked = (
            f"fused from {', '.join(measurement.parts)}: held-out AUC {held['auc']:.2f} "
            f"({held['auc_low']:.2f} to {held['auc_high']:.2f}) on {held['n_clean']} clean + "
            f"{held['n_backdoored']} backdoored models"
        )
        own = [
            note
            for part in measurement.parts
            if self.parts[part].takes_pictures
            for note in self.parts[part].notes_of(measurement)
        ]
        return (
            asked,
            *own,
            *(f"without {part}: {why}" for part, why in measurement.left_out.items()),
        )

    def _combination_of(self, parts: Sequence[str]) -> Combination:
        if tuple(parts) not in self.combinations:
            raise ValueError(f"no combination of {tuple(parts)}")
        return self.combinations[tuple(parts)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of parts and combinations, each under its name."""
        found: dict[str, NDArray[Any]] = {}
        for part, detector in self.parts.items():
            own = {**detector.arrays(), **detector.calibration.arrays()}
            found |= {f"{part}.{name}": array for name, array in own.items()}
        for chosen, combination in self.combinations.items():
            prefix = f"{_SEPARATOR.join(chosen)}.combined."
            found |= {f"{prefix}{name}": a for name, a in combination.arrays().items()}
        return found

    def options(self) -> dict[str, Any]:
        """Return what parts and combinations have beside arrays."""
        return {
            "order": list(self.parts),  # a header's keys are sorted
            "parts": {
                part: {
                    "options": detector.options(),
                    "calibration": detector.calibration.to_json(),
                    "held_out": dict(detector.held_out),
                }
                for part, detector in self.parts.items()
            },
            "combinations": {
                _SEPARATOR.join(chosen): combination.to_json()
                for chosen, combination in self.combinations.items()
            },
        }

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read a detector; raises DetectorError where a part or a combination is missing."""
        from litmus.detectors import DETECTORS

        common = cls.common_fields(arrays, header)
        # One model is recognised once, whatever the parts.
        own = {name: value for name, value in header.items() if name != "references"}
        try:
            options = header["options"]
            parts = {
                str(part): DETECTORS[part].from_file(
                    _below(arrays, f"{part}."),
                    {**own, **options["parts"][part], "scope": header["scope"]["parts"][part]},
                )
                for part in options["order"]
            }
            combinations = {
                tuple(name.split(_SEPARATOR)): Combination.from_file(
                    _below(arrays, f"{name}.combined."), stored
                )
                for name, stored in options["combinations"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise DetectorError(f"malformed: {fault} is missing") from fault
        if set(combinations) != set(possible_sets(parts)) or not parts:
            raise DetectorError("combinations of other parts", got=sorted(combinations))
        return cls(parts=parts, combinations=combinations, **common)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise UnsupportedModelError where what is done takes longer."""
    if seconds == math.inf:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise UnsupportedModelError(f"it takes longer than {seconds:.3g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _only_models(part: str, settings: Mapping[str, Any]) -> int:
    """Return how many models of each kind a part that is fitted already is calibrated on."""
    if wrong := sorted(set(settings) - {"models"}):
        raise UsageError(
            "a setting of a part that is fitted already",
            expected=f"{part}.models or none",
            got=wrong[0],
            where=part,
        )
    models: int = settings.get("models", 0)
    return models


def _check_parts(parts: Sequence[str]) -> None:
    from litmus.detectors import DETECTORS

    known = [name for name in DETECTORS if name != FusedDetector.name]
    wrong = [part for part in parts if part not in known or parts.count(part) > 1]
    if wrong or not parts:
        raise UsageError(
            "impossible parts",
            expected=f"each once of {', '.join(known)}",
            got=wrong[0] if wrong else "none",
            where="parts",
        )


def _by_part(parts: Sequence[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each part's settings: its own by `PART.NAME`, and for `ulp` those without a part."""
    own = {part: _default_models(part) for part in parts}
    for key, value in settings.items():
        part, dot, name = key.rpartition(".")
        part = part if dot else "ulp"
        if part not in own:
            raise UsageError(
                "a setting of no part", expected=f"parts {', '.join(parts)}", got=key, where="fused"
            )
        own[part][name] = value
    return own


def _default_models(part: str) -> dict[str, Any]:
    return {"models": _MODELS[part]} if part in _MODELS else {}


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
