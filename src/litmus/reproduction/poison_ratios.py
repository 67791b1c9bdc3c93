"""Figure 4: the attack at lower poison ratios, and how well it is still detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from litmus.evaluation import DetectionRow
from litmus.reproduction.detection import inversion_cell, pattern_cell
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Cell, Result, of_kind
from litmus.reproduction.study import MIN_TWINS, Study
from litmus.reproduction.tasks import Task
from litmus.zoo import ZooEntry

__all__ = ["COMPANION", "Figure4", "RatioPoint", "figure4", "figure4_tasks", "pair_up"]

COMPANION: Final = "-poison-ratios"
"""The zoo of lower ratios is called like the one with the clean models, with this behind."""
GATE: Final = 0.9
"""Attack success of the gated curve: the recipe's gate at 50 %."""
TRAINING, TEST, MEASURED = 100, 60, 20
"""Models of a kind to fit on, to test on, and to measure by `attack_based`, at each ratio."""
MIN_GATED: Final = 20


@dataclass(frozen=True, kw_only=True)
class RatioPoint:
    """One ratio, all of its models or those whose attack succeeded (`gated`).

    `attack_success` is their mean over the backdoored models, None where there are none. `rows`
    is empty where there are too few, and `reason` says so.
    """

    poison_ratio: float
    gated: bool
    attack_success: float | None
    n_backdoored: int
    n_training: int
    rows: tuple[DetectionRow, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Figure4(Result):
    """Figure 4: points by falling ratio, of all models and of gated ones in turn."""

    dataset: str
    num_patterns: int
    points: tuple[RatioPoint, ...]


@dataclass(frozen=True, kw_only=True)
class _Models:
    """The models of a point: pairs to fit on and to test on, backdoored ones before clean ones."""

    ratio: float
    zoo: str
    gated: bool
    training: tuple[ZooEntry, ...]
    test: tuple[ZooEntry, ...]
    measured: tuple[ZooEntry, ...]
    reason: str | None


def figure4_tasks(study: Study) -> list[Task]:
    """Return the fits and measurements of all points that have enough models."""
    return [
        task for models in _points(study) for cell in _cells(study, models) for task in cell.tasks
    ]


def figure4(study: Study, answers: Answers, on_progress: Progress) -> Figure4:
    """Return attack success and AUCs at every ratio, ungated and gated."""
    return Figure4(
        provenance=study.provenance(),
        dataset=study.recipes[study.name].dataset.name,
        num_patterns=study.middle_patterns,
        points=tuple(_point(study, models, answers) for models in _points(study)),
    )


def pair_up(backdoored: Sequence[ZooEntry], clean: Sequence[ZooEntry]) -> tuple[ZooEntry, ...]:
    """Return models of two zoos as if they were twins, the i-th backdoored with the i-th clean.

    Folds are of twins, and numbers of two zoos have nothing to do with each other. What has no
    partner is left out. The backdoored ones come first.
    """
    pairs = list(zip(backdoored, clean, strict=False))
    return tuple(
        replace(pair[kind], spec=replace(pair[kind].spec, twin=twin))
        for kind in (0, 1)
        for twin, pair in enumerate(pairs)
    )


def _points(study: Study) -> list[_Models]:
    half, lower = study.name, study.name + COMPANION
    by_ratio: dict[float, tuple[str, list[ZooEntry]]] = {}
    for name in (half, lower):
        for entry in of_kind(study.zoos[name].entries, backdoored=True):
            ratio = float(entry.spec.attack["poison_ratio"])
            by_ratio.setdefault(ratio, (name, []))[1].append(entry)
    clean = of_kind(study.zoos[half].entries, backdoored=False)
    return [
        _models(ratio, *by_ratio[ratio], clean, gated=gated)
        for ratio in sorted(by_ratio, reverse=True)
        for gated in (False, True)
    ]


def _models(
    ratio: float,
    zoo: str,
    backdoored: Sequence[ZooEntry],
    clean: Sequence[ZooEntry],
    *,
    gated: bool,
) -> _Models:
    """The gate picks among the models of the ungated point; it never brings in others."""
    bad = {split: _first(backdoored, split, n) for split, n in _SIZES.items()}
    good = {split: _first(clean, split, n) for split, n in _SIZES.items()}
    measured = bad["test"][:MEASURED]
    if gated:
        bad = {split: _succeeded(entries) for split, entries in bad.items()}
        measured = _succeeded(measured)
    reason = None
    enough = MIN_GATED if gated else MIN_TWINS
    pairs = min(len(bad["train"]), len(good["train"]))
    if pairs < enough:
        reason = f"{pairs} backdoored models to fit on are fewer than {enough}"
    elif not bad["test"] or not good["test"]:
        reason = "no models to test on"
    return _Models(
        ratio=ratio,
        zoo=zoo,
        gated=gated,
        training=pair_up(bad["train"], good["train"]),
        test=(*bad["test"], *good["test"]),
        measured=(*measured, *good["test"][:MEASURED]),
        reason=reason,
    )


_SIZES: Final[Mapping[str, int]] = {"train": TRAINING, "test": TEST}


def _first(entries: Sequence[ZooEntry], split: str, count: int) -> tuple[ZooEntry, ...]:
    return tuple(entry for entry in entries if entry.spec.split == split)[:count]


def _succeeded(entries: Sequence[ZooEntry]) -> tuple[ZooEntry, ...]:
    return tuple(entry for entry in entries if entry.attack_success > GATE)


def _cells(study: Study, models: _Models) -> list[Cell]:
    if models.reason is not None:
        return []
    found = [
        pattern_cell(study, models.zoo, name, study.middle_patterns, models.training, models.test)
        for name in ("noise", "ulp")
    ]
    if of_kind(models.measured, backdoored=True):
        found.append(inversion_cell(study, models.zoo, "attack_based", models.measured))
    return found


def _point(study: Study, models: _Models, answers: Answers) -> RatioPoint:
    bad = of_kind((*models.training, *models.test), backdoored=True)
    scored = [cell.scored(answers) for cell in _cells(study, models)]
    return RatioPoint(
        poison_ratio=models.ratio,
        gated=models.gated,
        attack_success=float(np.mean([e.attack_success for e in bad])) if bad else None,
        n_backdoored=len(bad),
        n_training=len(models.training),
        rows=tuple(cell.row(group=f"poison_ratio: {models.ratio:g}") for cell in scored),
        reason=models.reason,
    )
