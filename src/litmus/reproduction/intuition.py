"""Section 5, tested: do the patterns act as a collection of triggers?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from litmus.evaluation import DetectionRow
from litmus.formats import zoo_file
from litmus.metrics import binomial_interval
from litmus.reproduction.detection import pattern_cell
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Cell, Result
from litmus.reproduction.study import Study
from litmus.reproduction.tasks import FitTask, Task, fitted_detector
from litmus.schema import to_table
from litmus.zoo.expansion import split_triggers

__all__ = ["ClassRate", "Intuition", "intuition", "intuition_tasks"]


@dataclass(frozen=True, kw_only=True)
class ClassRate:
    """How often the class that patterns raise most is the attack's, with its 95 % interval.

    A class is raised by what the mean over patterns of its log-probability is above the mean of
    that over clean test models. Of `n` backdoored test models; by chance it would be `chance`.
    """

    patterns: str
    seed: int
    question: str
    hits: int
    n: int
    rate: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Intuition(Result):
    """Rates by kind of patterns and seed, and AUCs of ULP, noise and pasted triggers."""

    dataset: str
    num_patterns: int
    rates: tuple[ClassRate, ...]
    rows: tuple[DetectionRow, ...]


def intuition_tasks(study: Study) -> list[Task]:
    """Return the fits of all three kinds of patterns."""
    return [task for cell in _cells(study).values() for task in cell.tasks]


def intuition(study: Study, answers: Answers, on_progress: Progress) -> Intuition:
    """Return how often patterns raise the attack's classes, and what pasted triggers achieve."""
    rows, rates = [], []
    for label, cell in _cells(study).items():
        row = cell.scored(answers).row(group=f"patterns: {label}")
        rows.append(replace(row, detector=label if cell.fits[0].triggers else row.detector))
        for task in cell.fits:
            rates += _rates(label, task, answers)
    return Intuition(
        provenance=study.provenance(),
        dataset=study.recipes[study.name].dataset.name,
        num_patterns=max(study.num_patterns),
        rates=tuple(rates),
        rows=tuple(rows),
    )


def _cells(study: Study) -> dict[str, Cell]:
    """By kind of patterns: learned, noise, and the training triggers pasted on black."""
    zoo = study.zoos[study.name]
    common = (max(study.num_patterns), zoo.split("train"), zoo.split("test"))
    triggers = split_triggers(study.recipes[study.name])["train"]
    tables = tuple(to_table(trigger) for trigger in triggers)
    return {
        "learned": pattern_cell(study, study.name, "ulp", *common),
        "noise": pattern_cell(study, study.name, "noise", *common),
        "pasted triggers": pattern_cell(study, study.name, "noise", *common, triggers=tables),
    }


def _rates(label: str, task: FitTask, answers: Answers) -> list[ClassRate]:
    raised = _raised(task, answers)
    entries = [entry for entry in task.test if entry.backdoored]
    questions: dict[str, tuple[NDArray[np.int64], str]] = {
        "most raised is the target": (raised.argmax(axis=1), "target_class"),
        "most raised is the source": (raised.argmax(axis=1), "source_class"),
        "most lowered is the source": (raised.argmin(axis=1), "source_class"),
    }
    found = []
    for question, (answer, role) in questions.items():
        truth = [entry.spec.attack[role] for entry in entries]
        hits = int((answer == np.array(truth)).sum())
        low, high = binomial_interval(hits, len(truth))
        found.append(
            ClassRate(
                patterns=label,
                seed=task.seed,
                question=question,
                hits=hits,
                n=len(truth),
                rate=hits / len(truth),
                low=low,
                high=high,
                chance=1 / raised.shape[1],
            )
        )
    return found


def _raised(task: FitTask, answers: Answers) -> NDArray[np.float64]:
    """Return (backdoored test models, k): mean log-probability over patterns, above clean."""
    detector = fitted_detector(answers[task])
    means = np.array(
        [
            np.mean(detector.measure(zoo_file.load(entry.path)).log_probs, axis=0)
            for entry in task.test
        ]
    )
    backdoored = np.array([entry.backdoored for entry in task.test])
    above: NDArray[np.float64] = means[backdoored] - means[~backdoored].mean(axis=0)
    return above
