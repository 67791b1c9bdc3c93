"""What fine-tuning against a detector does to models, and to what detectors say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from litmus.detectors import Detector
from litmus.detectors.fused import FusedDetector
from litmus.errors import ZooError
from litmus.evaluation.rows import DetectionRow, ModelJudgement, judge_model, judged_row
from litmus.evaluation.unseen import check_detectors
from litmus.evasion.plan import Plan, Twin
from litmus.evasion.scores import attacked_parts
from litmus.zoo import ModelSpec, ZooEntry
from litmus.zoo.store import finished_ids, read_entry, read_rejected

__all__ = ["GROUPS", "Evasion", "Measured", "Tuned", "added_models", "read_tuned", "study"]

GROUPS: Final = ("as trained", "fine-tuned", "evading")
"""The backdoored models as the zoo has them, trained on by cross-entropy alone, and against the
detector. The clean ones are the twins', as the zoo has them in the first group, and trained on by
cross-entropy alone in the others: what is told apart is never that a model was fine-tuned."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What became of one model: `entry` is None where it failed the gate, for `rejection`."""

    before: ZooEntry
    spec: ModelSpec
    clean_accuracy: float
    attack_success: float
    entry: ZooEntry | None
    rejection: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a group of models can do: means over all of them, and the share that passes the gate.

    `attack_success` of clean models is how often their twin's trigger works on them.
    """

    group: str
    backdoored: bool
    n: int
    clean_accuracy: float
    attack_success: float
    passed: float


@dataclass(frozen=True, kw_only=True)
class Evasion:
    """All that `litmus evade` reports.

    Rows are of every detector on every one of `GROUPS`, whose models passed the gate. `refitted`
    is the detector that was fitted once more with evading models in its zoo, if one was, and
    `n_added` how many backdoored and clean ones these were.
    """

    plan: Plan
    detector: str
    attacked: tuple[str, ...]
    not_attacked: tuple[str, ...]
    fpr: float
    measured: tuple[Measured, ...]
    rows: tuple[DetectionRow, ...]
    tuned: tuple[Tuned, ...]
    models: Mapping[str, Mapping[str, tuple[ModelJudgement, ...]]]
    n_added: tuple[int, int] | None


def read_tuned(plan: Plan) -> dict[str, Tuned]:
    """Return what became of a plan's models, by id; raises ZooError where one is missing."""
    accepted, rejected = finished_ids(plan.folder)
    found = {}
    for before, spec in _with_origin(plan):
        if spec.id in accepted:
            entry = read_entry(plan.folder / f"{spec.id}.safetensors")
            found[spec.id] = Tuned(
                before=before,
                spec=spec,
                clean_accuracy=entry.clean_accuracy,
                attack_success=entry.attack_success,
                entry=entry,
            )
        elif spec.id in rejected:
            facts = read_rejected(plan.folder, spec.id)
            found[spec.id] = Tuned(
                before=before,
                spec=spec,
                clean_accuracy=facts["clean_accuracy"],
                attack_success=facts["attack_success"],
                entry=None,
                rejection=facts["reason"],
            )
        else:
            raise ZooError("a fine-tuned model is missing", got=spec.id, where=plan.folder)
    return found


def study(
    plan: Plan,
    detectors: Mapping[str, Detector],
    *,
    tuned: Mapping[str, Tuned],
    fpr: float = 0.05,
    refitted: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evasion:
    """Judge the plan's measured twins, before and after, with each detector (by label).

    The first detector is the one that was attacked; with `refitted`, the last one is what `refit`
    returned. Raises LitmusError where a detector is for other models, UsageError where `fpr` is
    finer than its calibration.
    """
    check_detectors(plan.zoo, detectors, fpr)
    groups = _groups(plan.measured, tuned)
    every = {entry.id: entry for entries in groups.values() for entry in entries}
    models: dict[str, dict[str, tuple[ModelJudgement, ...]]] = {}
    rows = []
    for number, (label, detector) in enumerate(detectors.items()):
        judged = {}
        for place, entry in enumerate(every.values()):
            judged[entry.id] = judge_model(detector, entry, fpr)
            on_progress(number * len(every) + place + 1, len(detectors) * len(every))
        models[label] = {
            group: tuple(judged[entry.id] for entry in entries) for group, entries in groups.items()
        }
        for group, members in models[label].items():
            if {m.entry.backdoored for m in members} == {True, False}:
                rows.append(
                    judged_row(label, detector, members, fpr=fpr, seed=plan.seed, group=group)
                )
    attacked = next(iter(detectors))
    return Evasion(
        plan=plan,
        detector=attacked,
        attacked=attacked_parts(detectors[attacked]),
        not_attacked=_not_attacked(detectors[attacked]),
        fpr=fpr,
        measured=tuple(_measured(plan.measured, tuned)),
        rows=tuple(rows),
        tuned=tuple(tuned.values()),
        models=models,
        n_added=_numbers(added_models(plan, tuned)) if refitted else None,
    )


def added_models(plan: Plan, tuned: Mapping[str, Tuned]) -> list[ZooEntry]:
    """Return what a detector is refitted on besides: evading models and fine-tuned clean ones."""
    made = [tuned[spec.id].entry for twin in plan.added for spec in (twin.evading, twin.clean)]
    return [entry for entry in made if entry is not None]


def _with_origin(plan: Plan) -> Iterator[tuple[ZooEntry, ModelSpec]]:
    before = {e.id: e for t in (*plan.measured, *plan.added) for e in (t.before, t.before_clean)}
    for spec in plan.specs():
        assert spec.fine_tuning is not None
        yield before[spec.fine_tuning.model], spec


def _groups(twins: Sequence[Twin], tuned: Mapping[str, Tuned]) -> dict[str, tuple[ZooEntry, ...]]:
    """The models of each of `GROUPS`; those that failed the gate are in none."""

    def passed(specs: Iterable[ModelSpec]) -> list[ZooEntry]:
        return [e for e in (tuned[spec.id].entry for spec in specs) if e is not None]

    clean = passed(twin.clean for twin in twins)
    made = (
        [entry for twin in twins for entry in (twin.before, twin.before_clean)],
        passed(twin.fine_tuned for twin in twins) + clean,
        passed(twin.evading for twin in twins) + clean,
    )
    return {group: tuple(entries) for group, entries in zip(GROUPS, made, strict=True)}


def _measured(twins: Sequence[Twin], tuned: Mapping[str, Tuned]) -> Iterator[Measured]:
    before: dict[bool, list[ZooEntry]] = {
        True: [twin.before for twin in twins],
        False: [twin.before_clean for twin in twins],
    }
    for kind, entries in before.items():
        yield _means(GROUPS[0], kind, entries, passed=len(entries))
        made = [twin.fine_tuned if kind else twin.clean for twin in twins]
        yield _after(GROUPS[1], kind, [tuned[spec.id] for spec in made])
        if kind:
            yield _after(GROUPS[2], kind, [tuned[twin.evading.id] for twin in twins])


def _after(group: str, kind: bool, models: Sequence[Tuned]) -> Measured:
    return _means(group, kind, models, passed=sum(m.entry is not None for m in models))


def _means(
    group: str, kind: bool, models: Sequence[ZooEntry] | Sequence[Tuned], passed: int
) -> Measured:
    return Measured(
        group=group,
        backdoored=kind,
        n=len(models),
        clean_accuracy=float(np.mean([m.clean_accuracy for m in models])),
        attack_success=float(np.mean([m.attack_success for m in models])),
        passed=passed / len(models),
    )


def _not_attacked(detector: Detector) -> tuple[str, ...]:
    if not isinstance(detector, FusedDetector):
        return ()
    return tuple(name for name in detector.parts if name not in attacked_parts(detector))


def _numbers(entries: Sequence[ZooEntry]) -> tuple[int, int]:
    backdoored = sum(entry.backdoored for entry in entries)
    return backdoored, len(entries) - backdoored
