"""Several detectors as one: whichever of them a model's file permits, stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement, Unseen
from litmus.detectors.calibration import Calibration
from litmus.errors import DetectorError, UnsupportedModelError, UsageError
from litmus.models import Images, Model

if TYPE_CHECKING:
    from litmus.zoo import Zoo

__all__ = ["Combination", "FusedDetector"]

_PARTS: Final = ("ulp", "last_layer")
"""What a file can be asked without PyTorch."""
_WITHIN: Final = 1.0
"""A part's scope distance is counted in its own limits."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How one set of parts is read: ``weights (p,) @ log-odds (p,) + bias``, and calibrated."""

    weights: NDArray[np.float64]
    bias: float
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class FusedDetector(Detector):
    """Stacked detectors (Wolpert 1992): a logistic regression on what their members say.

    `parts` are detectors by name that were fitted on the same models in the same folds, so that
    member i of each has held out the same ones. `combinations` has an entry for every set of parts
    that a model may permit; each is fitted and calibrated on models that the members had not
    seen. `calibration` is that of all parts together.
    """

    name: ClassVar[str] = "fused"

    parts: Mapping[str, Detector]
    combinations: Mapping[tuple[str, ...], Combination]

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        parts: Sequence[str] = _PARTS,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        members: int = 5,
        folds: str = "twin",
        seed: int = 0,
        on_progress: Callable[..., None] = lambda *report: None,
        **ulp: Any,
    ) -> Self:
        """Fit the parts on a zoo's training split, and stack them.

        `settings` are those of parts by name; what else is given is the `ulp` part's. The test
        split is not touched. Raises UsageError for an unknown part, ZooError where there are too
        few models.
        """
        from litmus.detectors import DETECTORS

        if unknown := [part for part in parts if part not in DETECTORS or part == cls.name]:
            raise UsageError(
                "unknown part", expected=", ".join(DETECTORS), got=unknown[0], where="parts"
            )
        given = {part: dict((settings or {}).get(part, {})) for part in parts}
        if ulp:
            given.setdefault("ulp", {}).update(ulp)
        fitted = {
            part: DETECTORS[part].fit(
                zoo,
                members=members,
                folds=folds,
                seed=seed,
                on_progress=on_progress,
                **given[part],
            )
            for part in parts
        }
        return cls._stacked(zoo, fitted, seed)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings of the `ulp` part, which is the one with much to choose."""
        from litmus.detectors import DETECTORS

        return DETECTORS["ulp"].defaults()

    @classmethod
    def _stacked(cls, zoo: Zoo, fitted: Mapping[str, Detector], seed: int) -> Self:
        from litmus.fitting import held_out_auc

        unseen = {part: detector.unseen for part, detector in fitted.items()}
        known = {part: heard for part, heard in unseen.items() if heard is not None}
        first = next(iter(known.values()))
        ids = [entry.id for entry in first.entries]
        if len(known) < len(fitted) or any(
            [entry.id for entry in heard.entries] != ids for heard in known.values()
        ):
            raise DetectorError("parts that were not fitted on the same models in the same folds")
        made = {
            chosen: _combined([known[part] for part in chosen], [fitted[p] for p in chosen])
            for chosen in _subsets(tuple(fitted))
        }
        whole = tuple(fitted)
        combination, scores = made[whole]
        heard = replace(first, scores=scores)
        return cls(
            input_spec=zoo.input_spec,
            parts=fitted,
            combinations={chosen: combined for chosen, (combined, _) in made.items()},
            calibration=combination.calibration,
            scope={
                **next(iter(fitted.values())).scope,
                "parts": {part: dict(detector.scope) for part, detector in fitted.items()},
            },
            held_out={
                **held_out_auc(scores, first.entries, seed),
                "parts": {
                    "+".join(chosen): held_out_auc(part_scores, first.entries, seed)
                    for chosen, (_, part_scores) in made.items()
                },
            },
            unseen=heard,
        )

    def measure(self, model: Model) -> Measurement:
        """Ask every part that the model permits; raises UnsupportedModelError where none can."""
        heard: dict[str, Measurement] = {}
        reasons = {}
        for part, detector in self.parts.items():
            try:
                heard[part] = detector.measure(model)
            except UnsupportedModelError as fault:
                reasons[part] = str(fault)
        if not heard:
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
        )

    def calibration_of(self, parts: Sequence[str]) -> Calibration:
        """Return the calibration of the parts that were asked; raises ValueError for no such."""
        if tuple(parts) not in self.combinations:
            raise ValueError(f"no combination of {tuple(parts)}")
        return self.combinations[tuple(parts)].calibration

    def queries_by_member(self) -> Sequence[Images]:
        """Return the images of the first part that asks any, as `measure` does with answers."""
        asked = (detector.queries_by_member() for detector in self.parts.values())
        return next((queries for queries in asked if len(queries)), ())

    def notes_of(self, measurement: Measurement) -> tuple[str, ...]:
        """Say which parts were asked, and which not and why."""
        asked = f"fused from {', '.join(measurement.parts)}"
        return (asked, *(f"without {part}: {why}" for part, why in measurement.left_out.items()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of parts and combinations, each under its name."""
        found: dict[str, NDArray[Any]] = {}
        for part, detector in self.parts.items():
            own = {**detector.arrays(), **detector.calibration.arrays()}
            found |= {f"{part}.{name}": array for name, array in own.items()}
        for chosen, combination in self.combinations.items():
            own = {"weights": combination.weights, **combination.calibration.arrays()}
            found |= {f"{'+'.join(chosen)}.combined.{name}": a for name, a in own.items()}
        return found

    def options(self) -> dict[str, Any]:
        """Return what parts and combinations have beside arrays."""
        return {
            "order": list(self.parts),  # a header's keys are sorted
            "parts": {
                part: {
                    "options": detector.options(),
                    "calibration": detector.calibration.to_json(),
                }
                for part, detector in self.parts.items()
            },
            "combinations": {
                "+".join(chosen): {
                    "bias": combination.bias,
                    "calibration": combination.calibration.to_json(),
                }
                for chosen, combination in self.combinations.items()
            },
        }

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read a detector; raises DetectorError where a part or a combination is missing."""
        from litmus.detectors import DETECTORS

        common = cls.common_fields(arrays, header)
        try:
            options = header["options"]
            parts = {
                str(part): DETECTORS[part].from_file(
                    _below(arrays, f"{part}."),
                    {
                        **header,
                        **options["parts"][part],
                        "scope": header["scope"]["parts"][part],
                        "held_out": header["held_out"]["parts"][part],
                    },
                )
                for part in options["order"]
            }
            combined = {
                tuple(name.split("+")): _combination(_below(arrays, f"{name}.combined."), own)
                for name, own in options["combinations"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise DetectorError(f"malformed: {fault} is missing") from fault
        if set(combined) != set(_subsets(tuple(parts))) or not parts:
            raise DetectorError("combinations of other parts", got=sorted(combined))
        return cls(parts=parts, combinations=combined, **common)


def _subsets(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every non-empty set of parts, in their order."""
    return [chosen for size in range(len(parts)) for chosen in combinations(parts, size + 1)]


def _combined(
    heard: Sequence[Unseen], parts: Sequence[Detector]
) -> tuple[Combination, NDArray[np.float64]]:
    """Fit a combination, and return what it says of the models that members had not seen."""
    from litmus.fitting import stack

    rows = np.stack([unseen.scores for unseen in heard], axis=1)
    weights, bias = stack(rows, heard[0].backdoored)
    scores = rows @ weights + bias
    distances = np.max(
        [
            unseen.distances / part.calibration.scope_limit
            for unseen, part in zip(heard, parts, strict=True)
        ],
        axis=0,
    )
    calibration = replace(heard[0], scores=scores, distances=distances).calibration()
    limited = replace(calibration, scope_limit=_WITHIN)
    return Combination(weights=weights, bias=bias, calibration=limited), scores


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _combination(arrays: Mapping[str, NDArray[Any]], own: Mapping[str, Any]) -> Combination:
    return Combination(
        weights=arrays["weights"],
        bias=float(own["bias"]),
        calibration=Calibration.from_file(arrays, own["calibration"]),
    )
