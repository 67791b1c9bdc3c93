"""Table 1 and Figure 5: every detector on every data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litmus.evaluation import Comparison, DetectionRow
from litmus.reproduction.plan import training_flops
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Cell, Curve, Result, Scored, balanced, compare
from litmus.reproduction.study import Study
from litmus.reproduction.tasks import Task
from litmus.zoo import Zoo, ZooEntry
from litmus.zoo.store import read_build

__all__ = [
    "DatasetTable",
    "Figure5",
    "Table1",
    "cells",
    "figure5",
    "inversion_cell",
    "pattern_cell",
    "table1",
    "table1_tasks",
]


@dataclass(frozen=True, kw_only=True)
class DatasetTable:
    """Table 1 for one data set.

    `zoo` describes the models, `cost` the mean CPU-seconds of a fit or a measurement by label.
    """

    name: str
    dataset: str
    zoo: Mapping[str, Any]
    rows: tuple[DetectionRow, ...]
    comparisons: tuple[Comparison, ...]
    cost: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Table1(Result):
    """Table 1 of the paper."""

    datasets: tuple[DatasetTable, ...]


@dataclass(frozen=True, kw_only=True)
class Figure5(Result):
    """ROC curves by recipe and detector, of scores averaged over seeds, and Table 1's rows."""

    curves: Mapping[str, Mapping[str, Curve]]
    rows: tuple[DetectionRow, ...]


def table1_tasks(study: Study) -> list[Task]:
    """Return all fits and measurements of Table 1 and Figure 5."""
    return [task for name in study.names for cell in cells(study, name) for task in cell.tasks]


def table1(study: Study, answers: Answers, on_progress: Progress) -> Table1:
    """Return Table 1.

    The paper has one set of M patterns, so a row is one member of the ensemble; AUCs are means
    over the seeds. The inversion detectors measure the first test models of each kind.
    """
    return Table1(
        provenance=study.provenance(),
        datasets=tuple(_table(study, name, answers) for name in study.names),
    )


def figure5(study: Study, answers: Answers, on_progress: Progress) -> Figure5:
    """Return the ROC curves of Table 1's cells."""
    scored = {name: [c.scored(answers) for c in cells(study, name)] for name in study.names}
    return Figure5(
        provenance=study.provenance(),
        curves={
            name: {cell.label: cell.curve() for cell in parts} for name, parts in scored.items()
        },
        rows=tuple(cell.row() for parts in scored.values() for cell in parts),
    )


def cells(study: Study, name: str) -> list[Cell]:
    """Return a recipe's cells: noise and ULP at every M, and the two inversion detectors."""
    zoo = study.zoos[name]
    training, test = zoo.split("train"), zoo.split("test")
    found = [
        pattern_cell(study, name, detector, m, training, test)
        for detector in ("noise", "ulp")
        for m in study.num_patterns
    ]
    counts = {
        "attack_based": study.attack_models[name],
        "neural_cleanse": study.cleanse_models[name],
    }
    found += [
        inversion_cell(study, name, detector, balanced(test, count))
        for detector, count in counts.items()
        if count >= 2
    ]
    return found


def pattern_cell(
    study: Study,
    name: str,
    detector: str,
    num_patterns: int,
    training: Sequence[ZooEntry],
    test: Sequence[ZooEntry],
    **settings: Any,
) -> Cell:
    """Return the cell of a detector that is fitted, once a seed."""
    fits = study.fits(name, detector, num_patterns, training, test, **settings)
    return Cell(
        detector=detector,
        num_patterns=num_patterns,
        entries=tuple(test),
        seeds=study.seeds,
        fits=tuple(fits),
    )


def inversion_cell(study: Study, name: str, detector: str, entries: Sequence[ZooEntry]) -> Cell:
    """Return the cell of a detector that measures each model by itself."""
    return Cell(
        detector=detector,
        num_patterns=None,
        entries=tuple(entries),
        seeds=(0,),
        measurements=tuple(study.measurement(name, detector, entry) for entry in entries),
    )


def _table(study: Study, name: str, answers: Answers) -> DatasetTable:
    scored = [cell.scored(answers) for cell in cells(study, name)]
    zoo = study.zoos[name]
    fitted_on = next(answers[cell.fits[0]]["num_training"] for cell in cells(study, name))
    return DatasetTable(
        name=name,
        dataset=study.recipes[name].dataset.name,
        zoo={**describe_zoo(zoo), "n_fitted_on": fitted_on},
        rows=tuple(row for cell in scored for row in cell.rows()),
        comparisons=_comparisons(scored),
        cost={cell.label: cell.cpu_seconds for cell in scored},
    )


def _comparisons(scored: Sequence[Scored]) -> tuple[Comparison, ...]:
    """ULP against noise at each M, and at the largest M against the inversion detectors."""
    ours = {s.cell.num_patterns or 0: s for s in scored if s.cell.detector == "ulp"}
    largest = ours[max(ours)]
    found = [
        compare(
            largest if other.cell.num_patterns is None else ours[other.cell.num_patterns], other
        )
        for other in scored
        if other.cell.detector != "ulp"
    ]
    return tuple(comparison for comparison in found if comparison is not None)


def describe_zoo(zoo: Zoo) -> dict[str, Any]:
    """Return how many models there are, how good, with which triggers, and what they cost."""
    backdoored = [entry for entry in zoo.entries if entry.backdoored]
    controls = [entry for entry in zoo.entries if not entry.backdoored]
    batch_size = int(zoo.recipe["training"]["batch_size"])
    kinds = {e.architecture: e for e in zoo.entries}
    flops = [training_flops(entry, batch_size) for entry in kinds.values()]
    rejected = _rejected(zoo)
    seconds = [read_build(entry).get("cpu_seconds") for entry in zoo.entries]
    known = [s for s in seconds if s is not None]
    wasted = sum(float(reason.get("cpu_seconds", 0.0)) for reason in rejected)
    test = zoo.split("test")
    return {
        "n_models": len(zoo.entries),
        "n_backdoored": len(backdoored),
        "n_rejected": len(rejected),
        "n_test": len(test),
        "train_triggers": sorted({e.trigger_id for e in zoo.split("train")}),
        "test_triggers": sorted({e.trigger_id for e in test}),
        "clean_accuracy": float(np.mean([e.clean_accuracy for e in backdoored])),
        "clean_accuracy_of_controls": float(np.mean([e.clean_accuracy for e in controls])),
        "attack_success": float(np.mean([e.attack_success for e in backdoored])),
        "attack_success_on_controls": float(np.mean([e.attack_success for e in controls])),
        "cpu_seconds_per_accepted_model": (sum(known) + wasted) / len(known) if known else None,
        "training_flops_per_model": float(np.mean(flops)),
    }


def _rejected(zoo: Zoo) -> list[Mapping[str, Any]]:
    """Return the attempts of these models' twins that failed their gate."""
    twins = {entry.spec.twin for entry in zoo.entries}
    reasons = [json.loads(p.read_text()) for p in sorted(zoo.path.glob("*.rejected.json"))]
    return [reason for reason in reasons if reason["spec"]["twin"] in twins]
