"""Leave one group out: fit on all models but those of one group, and judge that group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from litmus.detectors import Detector
from litmus.detectors.effort import Effort
from litmus.errors import UsageError, ZooError
from litmus.evaluation.breakdown import BreakdownRow, breakdown
from litmus.evaluation.rows import (
    DetectionRow,
    ModelJudgement,
    judge_model,
    judged_row,
    verdict_rates,
)
from litmus.metrics import Interval, binomial_interval, mean_auc_interval
from litmus.zoo import Zoo, ZooEntry

__all__ = ["GROUPINGS", "LeaveOut", "leave_out"]

GROUPINGS: Final[dict[str, Callable[[ZooEntry], str]]] = {
    "architecture": lambda entry: entry.architecture,
    "attack": lambda entry: str(entry.spec.attack["name"]),
    "recipe": lambda entry: str(entry.spec.training.get("name", "unnamed")),
    "zoo": lambda entry: entry.zoo,
}
"""What may be left out, and each model's group: its architecture's family, its attack's family (a
clean control goes with its twin), the name of its training in the recipe, its zoo."""


@dataclass(frozen=True, kw_only=True)
class LeaveOut:
    """What a kind of detector is worth on groups that it was not fitted on.

    `rows` has one row a group; `mean_auc` is the mean of their AUCs. `breakdown` has one row for
    each kind of backdoor, over all groups, where models are compared within their own group; its
    `num_patterns` and `seeds` are those of every fit. The other figures are pooled
    over all groups' models, each judged by the detector that did not see its group:
    `false_positive_rate` at the nominal `fpr` with its exact binomial interval.
    """

    by: str
    detector: str
    fpr: float
    rows: tuple[DetectionRow, ...]
    breakdown: tuple[BreakdownRow, ...]
    models: Mapping[str, tuple[ModelJudgement, ...]]
    mean_auc: float
    mean_auc_interval: Interval
    false_positive_rate: float
    false_positive_interval: tuple[float, float]
    true_positive_rate: float
    inconclusive_clean: float
    inconclusive_backdoored: float
    calibration_error: float


def leave_out(
    zoo: Zoo,
    fit: Callable[[Zoo], Detector],
    *,
    by: str,
    fpr: float = 0.05,
    seed: int = 0,
    only: Collection[str] = (),
    effort: Effort = "quick",
    on_group: Callable[[str, int, int], None] = lambda group, done, total: None,
) -> LeaveOut:
    """Fit a detector without each group of the training split in turn, and judge that group.

    What starts from the group's models, or what these start from, is left out with it. `by` is one
    of `GROUPINGS`; `only` restricts the measure to these groups. The test split is not
    touched. A fused detector asks the parts that `effort` does.
    `on_group` hears of each group before it is left out. Raises UsageError for an unknown grouping
    or group, ZooError where a group has no clean or no backdoored models or is the only one.
    """
    groups = _groups(zoo, by)
    if unknown := [group for group in only if group not in groups]:
        raise UsageError("no such group", expected=", ".join(groups), got=unknown[0], where=by)
    judged: dict[str, tuple[ModelJudgement, ...]] = {}
    rows = []
    chosen = [group for group in groups if group in (only or groups)]
    for done, group in enumerate(chosen):
        on_group(group, done, len(chosen))
        detector = fit(zoo.without(_with_all_kin(zoo, groups[group])))
        detector = detector.at_effort(effort, images=True)
        detector.check_fpr(fpr)
        models = tuple(judge_model(detector, entry, fpr) for entry in groups[group])
        judged[group] = models
        rows.append(
            judged_row(
                detector.name, detector, models, fpr=fpr, seed=seed, group=group, leave_out=by
            )
        )
    strata = [group for group, models in judged.items() for _ in models]
    pooled = [model for models in judged.values() for model in models]
    parts = breakdown(
        detector.name, detector, pooled, fpr=fpr, strata=strata, leave_out=by, seed=seed
    )
    return _summary(by, fpr, rows, parts, judged, seed)


def _with_all_kin(zoo: Zoo, group: tuple[ZooEntry, ...]) -> list[ZooEntry]:
    """Return the group, and all that its models start from or that start from them."""
    kin = {entry.kin for entry in group}
    return [entry for entry in zoo.entries if entry.kin in kin]


def _groups(zoo: Zoo, by: str) -> dict[str, tuple[ZooEntry, ...]]:
    if by not in GROUPINGS:
        raise UsageError(
            "can't be left out", expected=" or ".join(GROUPINGS), got=by, where="--leave-out"
        )
    name = GROUPINGS[by]
    entries = zoo.split("train")
    groups = {
        group: tuple(entry for entry in entries if name(entry) == group)
        for group in sorted({name(entry) for entry in entries})
    }
    if len(groups) < 2:
        raise ZooError(
            f"nothing to leave out: all models have the same {by}",
            got=", ".join(groups),
            where=zoo.path,
        )
    for group, members in groups.items():
        if {entry.backdoored for entry in members} != {True, False}:
            raise ZooError(
                f"too few models with {by} {group}",
                expected="clean and backdoored ones",
                got=len(members),
                where=zoo.path,
            )
    return groups


def _summary(
    by: str,
    fpr: float,
    rows: list[DetectionRow],
    parts: tuple[BreakdownRow, ...],
    judged: Mapping[str, tuple[ModelJudgement, ...]],
    seed: int,
) -> LeaveOut:
    models = [model for group in judged.values() for model in group]
    pooled = verdict_rates(models)
    clean = [m for m in models if not m.entry.backdoored]
    flagged = sum(m.judgement.verdict == "suspicious" for m in clean)
    scored = [
        (
            [m.judgement.score for m in group],
            [m.entry.backdoored for m in group],
            [m.entry.trigger_id for m in group],
        )
        for group in judged.values()
    ]
    return LeaveOut(
        by=by,
        detector=rows[0].detector,
        fpr=fpr,
        rows=tuple(rows),
        breakdown=parts,
        models=judged,
        mean_auc=float(np.mean([row.auc for row in rows])),
        mean_auc_interval=mean_auc_interval(scored, seed=seed),
        false_positive_rate=flagged / len(clean),
        false_positive_interval=binomial_interval(flagged, len(clean)),
        true_positive_rate=pooled["flagged_backdoored"],
        inconclusive_clean=pooled["inconclusive_clean"],
        inconclusive_backdoored=pooled["inconclusive_backdoored"],
        calibration_error=pooled["calibration_error"],
    )
