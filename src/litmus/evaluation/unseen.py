"""How well detectors do on a zoo's test split: rows by group, comparisons, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from litmus.datasets import Split
from litmus.detectors import Detector
from litmus.detectors.effort import Effort
from litmus.errors import LitmusError, UsageError
from litmus.evaluation.breakdown import BreakdownRow, breakdown
from litmus.evaluation.rows import DetectionRow, ModelJudgement, judge_model, judged_row
from litmus.metrics import PairedDifference, paired_auc_difference, roc_curve
from litmus.zoo import Zoo, ZooEntry

__all__ = ["Comparison", "Evaluation", "check_detectors", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two detectors on the same models: AUC of the first minus that of the second."""

    first: str
    second: str
    difference: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that `litmus evaluate` reports; `breakdown` is by what the backdoors are."""

    rows: tuple[DetectionRow, ...]
    breakdown: tuple[BreakdownRow, ...]
    comparisons: tuple[Comparison, ...]
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    models: Mapping[str, tuple[ModelJudgement, ...]]

    def headline(self, label: str) -> DetectionRow:
        """Return a detector's row over all models, against all clean ones."""
        return next(
            r for r in self.rows if (r.detector, r.group, r.against) == (label, "all", "clean")
        )


def evaluate(
    zoo: Zoo,
    detectors: Mapping[str, Detector],
    *,
    fpr: float = 0.05,
    seed: int = 0,
    images: Split | None = None,
    effort: Effort = "quick",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Judge the zoo's test models with each detector (by label) and summarise.

    Of a zoo without any, all models are judged, if no detector was fitted or calibrated on it.

    Rows are over all models, by control kind, by attack and by architecture. A detector that
    needs clean images gets `images`, by default the test images of the zoo's data set. A fused
    detector asks the parts that `effort` does. Raises
    DetectorError where a detector is for other inputs than the zoo's, UsageError where `fpr` is
    finer than a detector's calibration.
    """
    detectors = {name: d.at_effort(effort, images=True) for name, d in detectors.items()}
    check_detectors(zoo, detectors, fpr)
    detectors = {name: _with_images(d, zoo, images) for name, d in detectors.items()}
    entries = _judged(zoo, detectors)
    judged: dict[str, list[ModelJudgement]] = {label: [] for label in detectors}
    for done, entry in enumerate(entries, start=1):
        for label, detector in detectors.items():
            judged[label].append(judge_model(detector, entry, fpr))
        on_progress(done, len(entries))
    scores = {
        label: np.array([m.judgement.score for m in models]) for label, models in judged.items()
    }
    backdoored = np.array([entry.backdoored for entry in entries])
    triggers = np.array([entry.trigger_id for entry in entries])
    return Evaluation(
        rows=tuple(
            row
            for label, models in judged.items()
            for row in _rows(label, detectors[label], models, fpr, seed)
        ),
        breakdown=tuple(
            row
            for label, models in judged.items()
            for row in breakdown(label, detectors[label], models, fpr=fpr, seed=seed)
        ),
        comparisons=tuple(
            Comparison(
                first=a,
                second=b,
                difference=paired_auc_difference(
                    scores[a], scores[b], backdoored, triggers, seed=seed
                ),
            )
            for a, b in combinations(detectors, 2)
        ),
        curves={label: roc_curve(values, backdoored) for label, values in scores.items()},
        models={label: tuple(models) for label, models in judged.items()},
    )


def check_detectors(zoo: Zoo, detectors: Mapping[str, Detector], fpr: float) -> None:
    """Raise LitmusError where a detector is for other models, UsageError where `fpr` is too fine.

    UsageError, too, where there is no detector.
    """
    if not detectors:
        raise UsageError("no detector to evaluate", expected="at least one --detector FILE")
    for label, detector in detectors.items():
        detector.check_fpr(fpr)
        if detector.input_spec != zoo.input_spec:
            raise LitmusError(
                f"detector {label} is for other models",
                expected=str(zoo.input_spec),
                got=str(detector.input_spec),
                where=zoo.path,
            )


def _judged(zoo: Zoo, detectors: Mapping[str, Detector]) -> Sequence[ZooEntry]:
    kept_apart = any(entry.spec.split == "test" for entry in zoo.entries)
    if kept_apart or any(detector.knows(zoo) for detector in detectors.values()):
        return zoo.split("test")
    return zoo.entries


def _with_images(detector: Detector, zoo: Zoo, images: Split | None) -> Detector:
    if not detector.lacks_images:
        return detector
    return detector.with_images(zoo.load_dataset().test if images is None else images)


def _groups(entries: Sequence[ZooEntry]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Return (group, against, which models): all, by control, by attack, by architecture."""
    bad = np.array([entry.backdoored for entry in entries])
    treatment = np.array([entry.spec.treatment for entry in entries])
    groups = [("all", "clean", np.ones(len(entries), dtype=bool))]
    groups += [("all", kind, bad | (treatment == kind)) for kind in sorted(set(treatment[~bad]))]
    attacks = np.array([entry.attack for entry in entries])
    groups += [
        (f"attack: {name}", "clean", ~bad | (attacks == name)) for name in sorted(set(attacks))
    ]
    families = np.array([entry.architecture for entry in entries])
    groups += [
        (f"architecture: {name}", "clean", families == name) for name in sorted(set(families))
    ]
    return groups


def _rows(
    label: str,
    detector: Detector,
    models: Sequence[ModelJudgement],
    fpr: float,
    seed: int,
) -> list[DetectionRow]:
    rows = []
    for group, against, chosen in _groups([m.entry for m in models]):
        members = [m for m, is_in in zip(models, chosen, strict=True) if is_in]
        if {m.entry.backdoored for m in members} == {True, False}:
            names = {"group": group, "against": against}
            rows.append(judged_row(label, detector, members, fpr=fpr, seed=seed, **names))
    return rows
