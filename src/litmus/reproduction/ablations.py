"""What each choice of the method does: pooling, regulariser, dropout, features, zoo size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litmus.evaluation import DetectionRow
from litmus.features import FEATURES, POOLINGS
from litmus.reproduction.detection import pattern_cell
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Cell, Result
from litmus.reproduction.study import MIN_TWINS, Study
from litmus.reproduction.tasks import Task
from litmus.zoo import ZooEntry

__all__ = ["Ablation", "Ablations", "ablations", "ablations_tasks"]

_SMALLEST = 25
"""Training models; sizes double from here."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One setting of one choice; `default` marks what Litmus does unasked."""

    choice: str
    value: str
    default: bool
    n_training: int
    row: DetectionRow


@dataclass(frozen=True, kw_only=True)
class Ablations(Result):
    """All ablations of ULP at one M."""

    dataset: str
    num_patterns: int
    rows: tuple[Ablation, ...]


def ablations_tasks(study: Study) -> list[Task]:
    """Return every setting's fits; the default ones are shared."""
    return [task for *_, cell in _cells(study) for task in cell.tasks]


def ablations(study: Study, answers: Answers, on_progress: Progress) -> Ablations:
    """Return a row on the test split for each setting."""
    return Ablations(
        provenance=study.provenance(),
        dataset=study.recipes[study.name].dataset.name,
        num_patterns=study.middle_patterns,
        rows=tuple(
            Ablation(
                choice=choice,
                value=value,
                default=default,
                n_training=len(cell.fits[0].training),
                row=cell.scored(answers).row(group=f"{choice}: {value}"),
            )
            for choice, value, default, cell in _cells(study)
        ),
    )


def _cells(study: Study) -> list[tuple[str, str, bool, Cell]]:
    """Return (choice, value, whether it is the default, cell)."""
    from litmus.fitting import PatternSettings

    zoo = study.zoos[study.name]
    training, test = zoo.split("train"), zoo.split("test")
    default = PatternSettings()
    choices: list[tuple[str, tuple[Any, ...], Any]] = [
        ("pooling", POOLINGS, default.pooling),
        ("tv_weight", (0.0, default.tv_weight), default.tv_weight),
        ("dropout", (0.0, default.dropout), default.dropout),
        ("features", FEATURES, default.features),
    ]

    def cell(entries: tuple[ZooEntry, ...], **settings: Any) -> Cell:
        m = study.middle_patterns
        return pattern_cell(study, study.name, "ulp", m, entries, test, **settings)

    found = [
        (choice, f"{value:g}" if isinstance(value, float) else value, value == usual, part)
        for choice, values, usual in choices
        for value in values
        for part in [cell(training, **{choice: value})]
    ]
    return found + [
        ("training models", str(len(entries)), len(entries) == len(training), cell(entries))
        for entries in _sizes(training)
    ]


def _sizes(training: tuple[ZooEntry, ...]) -> list[tuple[ZooEntry, ...]]:
    """The first 25, 50, 100, ... models, whole twins, and all of them."""
    twins = sorted({entry.spec.twin for entry in training})
    counts, size = [], _SMALLEST
    while size // 2 < len(twins):
        counts.append(size // 2)
        size *= 2
    chosen = [set(twins[:count]) for count in (*counts, len(twins)) if count >= MIN_TWINS]
    return [tuple(e for e in training if e.spec.twin in part) for part in chosen]
