"""The paper's experiments, each a function from a zoo to a result that can be written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import litmus
from litmus.artifacts import machine_facts
from litmus.detectors import DETECTORS
from litmus.detectors.patterns import PatternDetector
from litmus.errors import UsageError
from litmus.evaluation import Comparison, DetectionRow, detection_row
from litmus.fitting import MemberReport
from litmus.formats import zoo_file
from litmus.metrics import paired_auc_difference, roc_curve
from litmus.zoo import Zoo, ZooEntry
from litmus.zoo.store import read_build

__all__ = ["PAPER_AUC", "PAPER_ZOO", "Table1", "table1"]

PAPER_AUC: Final = {
    "mnist": {"noise": {1: 0.94, 5: 0.90, 10: 0.86}, "ulp": {1: 0.94, 5: 0.99, 10: 1.00}},
    "cifar10": {"noise": {1: 0.62, 5: 0.68, 10: 0.59}, "ulp": {1: 0.68, 5: 0.99, 10: 1.00}},
    "gtsrb": {"noise": {1: 0.61, 5: 0.59, 10: 0.54}, "ulp": {1: 0.75, 5: 0.88, 10: 0.90}},
}
"""AUC by data set, detector and M: Table 1 of the paper."""
PAPER_ZOO: Final = {
    "mnist": {"clean_accuracy": 0.994, "attack_success": 1.0},
    "cifar10": {"clean_accuracy": 0.795, "attack_success": 0.999},
    "gtsrb": {"clean_accuracy": 0.992, "attack_success": 0.972},
}
"""Mean clean accuracy and attack success of the backdoored models: Table 1 of the paper."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Table1:
    """Table 1 for one data set, and the ROC curves of Figure 5 (scores averaged over seeds)."""

    dataset: str
    zoo: dict[str, Any]
    rows: tuple[DetectionRow, ...]
    comparisons: tuple[Comparison, ...]
    curves: dict[str, tuple[Scores, Scores]]
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    detector: str
    num_patterns: int
    scores: Scores
    """(seeds, test models)"""

    @property
    def label(self) -> str:
        return f"{self.detector}, M = {self.num_patterns}"


def table1(
    zoo: Zoo,
    *,
    command: str,
    detectors: Sequence[str] = ("noise", "ulp"),
    num_patterns: Sequence[int] = (1, 5, 10),
    seeds: Sequence[int] = (0, 1, 2),
    scale: float = 1.0,
    on_progress: Callable[[str, MemberReport], None] = lambda cell, report: None,
    **settings: Any,
) -> Table1:
    """Fit one member for each detector, M and seed, and measure it on the zoo's test split.

    The paper has one set of M patterns, so a row is one member of the ensemble; AUCs are means
    over the seeds. `scale` takes the recipe's first models, whatever else the zoo holds.
    """
    if unknown := [name for name in detectors if name not in DETECTORS]:
        raise UsageError("unknown detector", expected=", ".join(DETECTORS), got=unknown[0])
    zoo = zoo.first(scale)
    entries = zoo.split("test")
    models = [zoo_file.load(entry.path) for entry in entries]
    cells = []
    for name in detectors:
        for m in num_patterns:
            scores = []
            for seed in seeds:
                label = f"{name}, M = {m}, seed {seed}"
                fitted = DETECTORS[name].fit(
                    zoo,
                    num_patterns=m,
                    members=1,
                    seed=seed,
                    on_progress=lambda report, label=label: on_progress(label, report),
                    **settings,
                )
                assert isinstance(fitted, PatternDetector)
                num_training = fitted.scope["num_training"]
                scores.append([fitted.score(model) for model in models])
            cells.append(_Cell(detector=name, num_patterns=m, scores=np.array(scores)))
    dataset = str(entries[0].spec.dataset["name"])
    return Table1(
        dataset=dataset,
        zoo=_describe(zoo, entries, num_training[0]),
        rows=tuple(row for cell in cells for row in _rows(entries, cell, seeds)),
        comparisons=_comparisons(entries, cells),
        curves={
            cell.label: roc_curve(cell.scores.mean(axis=0), [e.backdoored for e in entries])
            for cell in cells
        },
        provenance={
            "command": command,
            "recipe": dict(zoo.recipe),
            "scale": scale,
            "seeds": list(seeds),
            "settings": dict(fitted.scope["settings"]),
            "machine": machine_facts(),
            "litmus_version": litmus.__version__,
            "torch_version": fitted.scope["torch_version"],
        },
    )


def _rows(entries: Sequence[ZooEntry], cell: _Cell, seeds: Sequence[int]) -> list[DetectionRow]:
    rows = []
    kinds = sorted({entry.spec.treatment for entry in entries if not entry.backdoored})
    for against in ("clean", *kinds):
        chosen = [e.backdoored or against in ("clean", e.spec.treatment) for e in entries]
        rows.append(
            detection_row(
                [e for e, is_in in zip(entries, chosen, strict=True) if is_in],
                cell.scores[:, chosen],
                detector=cell.detector,
                num_patterns=cell.num_patterns,
                seeds=seeds,
                against=against,
            )
        )
    return rows


def _comparisons(entries: Sequence[ZooEntry], cells: Sequence[_Cell]) -> tuple[Comparison, ...]:
    """ULP against noise at each M, on the same models, with the mean over seeds."""
    backdoored = np.array([entry.backdoored for entry in entries])
    triggers = np.array([entry.trigger_id for entry in entries])
    return tuple(
        Comparison(
            first=ours.label,
            second=other.label,
            difference=paired_auc_difference(ours.scores, other.scores, backdoored, triggers),
        )
        for ours in cells
        for other in cells
        if ours.detector == "ulp"
        and other.detector != "ulp"
        and ours.num_patterns == other.num_patterns
    )


def _describe(zoo: Zoo, test: Sequence[ZooEntry], num_training: int) -> dict[str, Any]:
    """What the detectors were fitted and measured on, with what it cost."""
    backdoored = [entry for entry in zoo.entries if entry.backdoored]
    controls = [entry for entry in zoo.entries if not entry.backdoored]
    seconds = [read_build(entry).get("cpu_seconds") for entry in zoo.entries]
    known = [s for s in seconds if s is not None]
    return {
        "n_models": len(zoo.entries),
        "n_backdoored": len(backdoored),
        "n_test": len(test),
        "n_fitted_on": num_training,
        "train_triggers": sorted({e.trigger_id for e in zoo.split("train")}),
        "test_triggers": sorted({e.trigger_id for e in test}),
        "clean_accuracy": float(np.mean([e.clean_accuracy for e in backdoored])),
        "clean_accuracy_of_controls": float(np.mean([e.clean_accuracy for e in controls])),
        "attack_success": float(np.mean([e.attack_success for e in backdoored])),
        "attack_success_on_controls": float(np.mean([e.attack_success for e in controls])),
        "cpu_seconds_per_model": float(np.mean(known)) if known else None,
    }
