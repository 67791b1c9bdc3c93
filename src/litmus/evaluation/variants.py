"""Variants of a detector, each measured on groups that its fit left out, and compared."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field  # noqa: TID253 - no scan gets here
from pydantic.dataclasses import dataclass  # noqa: TID253

from litmus.detectors import DETECTORS
from litmus.errors import RecipeError
from litmus.evaluation.leave_out import GROUPINGS
from litmus.metrics import PairedDifference, paired_mean_auc_difference
from litmus.schema import STRICT, from_table

__all__ = ["Variant", "VariantPlan", "load_plan", "mean_auc_difference"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Variant:
    """A detector by kind, with the `settings` that set it apart."""

    name: str
    detector: str = "ulp"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VariantPlan:
    """Variants, and the groups on which they are compared: all, or these `groups`.

    `settings` are those of every variant that knows them and does not have its own.
    """

    leave_out: str
    groups: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant: Annotated[tuple[Variant, ...], Field(min_length=1)]

    def settings_of(self, variant: Variant) -> dict[str, Any]:
        """Return what a variant is fitted with."""
        known = DETECTORS[variant.detector].defaults()
        shared = {name: value for name, value in self.settings.items() if name in known}
        return {**shared, **variant.settings}


def load_plan(path: str | Path) -> VariantPlan:
    """Read and check a plan; raises RecipeError with file, key, expected and got."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as fault:
        raise RecipeError(f"can't be read: {fault.strerror}", where=path) from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RecipeError(f"not TOML: {fault}", where=path) from fault
    plan = from_table(VariantPlan, table, f"{path}:")
    if plan.leave_out not in GROUPINGS:
        raise _wrong(path, "leave_out", " or ".join(GROUPINGS), plan.leave_out)
    names = [variant.name for variant in plan.variant]
    if len(set(names)) < len(names):
        raise _wrong(path, "variant.name", "names that differ", ", ".join(names))
    kinds: set[str] = set()
    for variant in plan.variant:
        if variant.detector not in DETECTORS:
            raise _wrong(path, "variant.detector", ", ".join(DETECTORS), variant.detector)
        known = DETECTORS[variant.detector].defaults()
        kinds.update(known)
        for name in variant.settings:
            if name not in known:
                raise _wrong(path, f"variant {variant.name}: settings", ", ".join(known), name)
    for name in plan.settings:
        if name not in kinds:
            raise _wrong(path, "settings", ", ".join(sorted(kinds)), name)
    return plan


def _wrong(path: str | Path, key: str, expected: str, got: str) -> RecipeError:
    return RecipeError("wrong value", expected=expected, got=got, where=f"{path}: {key}")


def mean_auc_difference(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], *, seed: int = 0
) -> PairedDifference:
    """Compare two variants by their mean AUC over groups, on the same models, paired.

    Each has one mapping a model, as results have them: `id`, `group`, `treatment`, `trigger`,
    `score`.
    """
    other = {model["id"]: model["score"] for model in second}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for model in first:
        groups.setdefault(model["group"], []).append(model)
    return paired_mean_auc_difference(
        [
            (
                [model["score"] for model in models],
                [other[model["id"]] for model in models],
                [model["treatment"] == "backdoored" for model in models],
                [model["trigger"] for model in models],
            )
            for models in groups.values()
        ],
        seed=seed,
    )
