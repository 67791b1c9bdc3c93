"""What the experiments share of their results: scored cells, rows, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litmus.evaluation import Comparison, DetectionRow, detection_row
from litmus.metrics import paired_auc_difference, roc_curve
from litmus.reproduction.pool import Answers
from litmus.reproduction.tasks import FitTask, MeasureTask
from litmus.zoo import ZooEntry

__all__ = ["Cell", "Result", "Scored", "balanced", "compare", "of_kind"]

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """An experiment's result; `provenance` is in every file."""

    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: a detector on models, and the tasks that score them.

    One fit for each of `seeds`, or one measurement for each of `entries`.
    """

    detector: str
    num_patterns: int | None
    entries: tuple[ZooEntry, ...]
    seeds: tuple[int, ...]
    fits: tuple[FitTask, ...] = ()
    measurements: tuple[MeasureTask, ...] = ()

    @property
    def tasks(self) -> tuple[FitTask | MeasureTask, ...]:
        """All of them."""
        return (*self.fits, *self.measurements)

    def scored(self, answers: Answers) -> Scored:
        """Return the cell with its scores."""
        if self.fits:
            rows = [answers[task]["scores"] for task in self.fits]
        else:
            rows = [[answers[task]["score"] for task in self.measurements]]
        seconds = [answers[task]["cpu_seconds"] for task in self.tasks]
        return Scored(cell=self, scores=np.array(rows), cpu_seconds=float(np.mean(seconds)))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A cell with its scores (seeds, models) and the mean CPU-seconds of a fit or measurement."""

    cell: Cell
    scores: NDArray[np.float64]
    cpu_seconds: float

    @property
    def label(self) -> str:
        """`ulp, M = 5` or the detector's name."""
        m = self.cell.num_patterns
        return self.cell.detector if m is None else f"{self.cell.detector}, M = {m}"

    @property
    def backdoored(self) -> NDArray[np.bool_]:
        """Which of the models are (models,)."""
        return np.array([entry.backdoored for entry in self.cell.entries])

    def curve(self) -> Curve:
        """Return the ROC curve of the scores' mean over seeds."""
        return roc_curve(self.scores.mean(axis=0), self.backdoored)

    def row(self, *, group: str = "all", against: str = "clean") -> DetectionRow:
        """Summarise the backdoored models against clean ones, or those of one control kind."""
        chosen = [
            entry.backdoored or against in ("clean", entry.spec.treatment)
            for entry in self.cell.entries
        ]
        entries = [e for e, is_in in zip(self.cell.entries, chosen, strict=True) if is_in]
        row = detection_row(
            entries,
            self.scores[:, chosen],
            detector=self.cell.detector,
            num_patterns=self.cell.num_patterns,
            seeds=self.cell.seeds,
            group=group,
            against=against,
        )
        # An inversion's score without a threshold gives no probability.
        return row if self.cell.fits else replace(row, accuracy=None)

    def rows(self) -> list[DetectionRow]:
        """Return a row against all clean models, and one against each kind of control."""
        kinds = {e.spec.treatment for e in self.cell.entries if not e.backdoored}
        return [self.row(against=against) for against in ("clean", *sorted(kinds))]


def compare(first: Scored, second: Scored) -> Comparison | None:
    """Compare two cells on the models that both scored; None where a kind is missing there."""
    places = {entry.id: i for i, entry in enumerate(first.cell.entries)}
    shared = [i for i, entry in enumerate(second.cell.entries) if entry.id in places]
    entries = [second.cell.entries[i] for i in shared]
    if {entry.backdoored for entry in entries} != {True, False}:
        return None
    difference = paired_auc_difference(
        first.scores[:, [places[entry.id] for entry in entries]],
        second.scores[:, shared],
        [entry.backdoored for entry in entries],
        [entry.trigger_id for entry in entries],
    )
    return Comparison(first=first.label, second=second.label, difference=difference)


def of_kind(entries: Sequence[ZooEntry], *, backdoored: bool) -> tuple[ZooEntry, ...]:
    """Return the backdoored models, or the clean ones, in their order."""
    return tuple(entry for entry in entries if entry.backdoored is backdoored)


def balanced(entries: Sequence[ZooEntry], models: int) -> tuple[ZooEntry, ...]:
    """Return the first `models` of them, half clean and half backdoored, in their order."""
    kinds = [of_kind(entries, backdoored=kind)[: models // 2] for kind in (True, False)]
    chosen = {entry.id for kind in kinds for entry in kind}
    return tuple(entry for entry in entries if entry.id in chosen)
