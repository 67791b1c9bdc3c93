"""Fitting a detector once more, on its zoo and on models that evade it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from litmus.detectors import Detector, StatisticDetector
from litmus.detectors.fused import FusedDetector
from litmus.detectors.patterns import PatternDetector
from litmus.errors import ZooError
from litmus.evasion.plan import Plan
from litmus.zoo import Zoo, ZooEntry

__all__ = ["check_apart", "refit"]


def check_apart(zoo: Zoo, plan: Plan) -> None:
    """Raise ZooError where a trigger that is measured is one that a refit would see."""
    seen = (*zoo.split("train"), *(twin.before for twin in plan.added))
    measured = {twin.before.trigger_id for twin in plan.measured}
    if shared := measured & {entry.trigger_id for entry in seen}:
        raise ZooError(
            "triggers to measure on are among those to fit on",
            expected="a zoo with other triggers",
            got=", ".join(sorted(shared)),
            where=zoo.path,
        )


def refit(
    detector: Detector,
    zoo: Zoo,
    added: Sequence[ZooEntry],
    *,
    on_progress: Callable[..., None] = lambda *report: None,
) -> Detector:
    """Fit a detector with its own settings and seed on the training split of a zoo and on `added`.

    A fine-tuned model of the zoo is on the same side of every fold as the model that it was.
    Raises ZooError where there are too few models.
    """
    lines = {entry.id: entry.line for entry in zoo.entries}
    offset = 1 + max(entry.spec.twin for entry in zoo.entries)
    joined = [
        replace(entry, line=lines[_origin(entry)])
        if _origin(entry) in lines
        else _moved(entry, offset)
        for entry in added
    ]
    recipe = {**zoo.recipe, "name": f"{zoo.recipe['name']}, {detector.name} evaded"}
    whole = replace(zoo, recipe=recipe, entries=(*zoo.split("train"), *joined))
    seed = detector.scope["seed"]
    return type(detector).fit(whole, seed=seed, on_progress=on_progress, **_arguments(detector))


def _origin(entry: ZooEntry) -> str:
    return entry.id if entry.spec.fine_tuning is None else entry.spec.fine_tuning.model


def _moved(entry: ZooEntry, offset: int) -> ZooEntry:
    """Another zoo's twins have numbers that this one's have too."""
    return replace(entry, spec=replace(entry.spec, twin=entry.spec.twin + offset))


def _arguments(detector: Detector) -> dict[str, Any]:
    """What `fit` was called with, but for the seed."""
    folds = detector.scope.get("folds", "twin")
    if isinstance(detector, FusedDetector):
        first = next(iter(detector.parts.values()))
        return {
            "parts": tuple(detector.parts),
            **{
                f"{name}.{key}": value
                for name, part in detector.parts.items()
                for key, value in _settings(part).items()
            },
            "members": _members(first),
            "folds": folds,
        }
    return {**_settings(detector), "members": _members(detector), "folds": folds}


def _settings(detector: Detector) -> dict[str, Any]:
    settings = dict(detector.scope["settings"])
    settings.pop("learn_patterns", None)  # the detector's kind says that
    return settings


def _members(detector: Detector) -> int:
    assert isinstance(detector, PatternDetector | StatisticDetector)
    return len(detector.members if isinstance(detector, PatternDetector) else detector.heads)
