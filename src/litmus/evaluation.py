"""How well detectors do on a zoo's test split: AUC with intervals, rates, rows by group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litmus.datasets import Split
from litmus.detectors import Detector, InversionDetector, Judgement
from litmus.errors import LitmusError, UsageError
from litmus.formats import zoo_file
from litmus.metrics import (
    PairedDifference,
    accuracy,
    auc,
    auc_interval,
    expected_calibration_error,
    paired_auc_difference,
    roc_curve,
    tpr_at_fpr,
)
from litmus.zoo import Zoo, ZooEntry

__all__ = [
    "Comparison",
    "DetectionRow",
    "Evaluation",
    "ModelJudgement",
    "detection_row",
    "evaluate",
]


@dataclass(frozen=True, kw_only=True)
class DetectionRow:
    """One row of a detection table; the field names are those of `results/`.

    `against` says which clean models stand on the other side; `accuracy` is at a probability of
    one half, None where a detector gives none; the `tpr_at_fpr` are read off the test models'
    own curve. `flagged_clean` and `flagged_backdoored` are the shares with verdict suspicious at
    the nominal rate `fpr`, and the `inconclusive` ones count as not flagged.
    """

    dataset: str
    detector: str
    num_patterns: int | None
    group: str
    leave_out: str | None
    against: str
    accuracy: float | None
    auc: float
    auc_low: float
    auc_high: float
    interval: str
    tpr_at_fpr_1: float | None
    tpr_at_fpr_5: float | None
    n_clean: int
    n_backdoored: int
    n_triggers: int
    seeds: tuple[int, ...]
    fpr: float | None = None
    flagged_clean: float | None = None
    flagged_backdoored: float | None = None
    inconclusive_clean: float | None = None
    inconclusive_backdoored: float | None = None
    calibration_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ModelJudgement:
    """What a detector said of one test model."""

    entry: ZooEntry
    judgement: Judgement


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two detectors on the same models: AUC of the first minus that of the second."""

    first: str
    second: str
    difference: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that `litmus evaluate` reports."""

    rows: tuple[DetectionRow, ...]
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Judge the zoo's test models with each detector (by label) and summarise.

    Rows are over all models, by control kind, by attack and by architecture. A detector that
    needs clean images gets `images`, by default the test images of the zoo's data set. Raises
    DetectorError where a detector is for other inputs than the zoo's, UsageError where `fpr` is
    finer than a detector's calibration.
    """
    _check(zoo, detectors, fpr)
    detectors = {name: _with_images(d, zoo, images) for name, d in detectors.items()}
    entries = zoo.split("test")
    judged: dict[str, list[ModelJudgement]] = {label: [] for label in detectors}
    for done, entry in enumerate(entries):
        model = zoo_file.load(entry.path)
        for label, detector in detectors.items():
            judgement = detector.judge(detector.measure(model), fpr=fpr)
            judged[label].append(ModelJudgement(entry=entry, judgement=judgement))
        on_progress(done + 1, len(entries))
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


def detection_row(
    entries: Sequence[ZooEntry],
    scores: NDArray[np.float64],
    *,
    detector: str,
    num_patterns: int | None,
    seeds: Sequence[int],
    group: str = "all",
    against: str = "clean",
    bootstrap_seed: int = 0,
    **rates: float | None,
) -> DetectionRow:
    """Summarise scores (n,), or (seeds, n) for the mean over seeds, of these models."""
    backdoored = np.array([entry.backdoored for entry in entries])
    triggers = np.array([entry.trigger_id for entry in entries])
    per_seed = np.atleast_2d(scores)
    interval = auc_interval(scores, backdoored, triggers, seed=bootstrap_seed)

    def mean_tpr(rate: float) -> float | None:
        values = [tpr_at_fpr(row, backdoored, rate) for row in per_seed]
        return None if None in values else float(np.mean(values))  # type: ignore[arg-type]

    return DetectionRow(
        dataset=str(entries[0].spec.dataset["name"]),
        detector=detector,
        num_patterns=num_patterns,
        group=group,
        leave_out=None,
        against=against,
        accuracy=float(np.mean([accuracy(row, backdoored) for row in per_seed])),
        auc=auc(scores, backdoored),
        auc_low=interval.low,
        auc_high=interval.high,
        interval=interval.method,
        tpr_at_fpr_1=mean_tpr(0.01),
        tpr_at_fpr_5=mean_tpr(0.05),
        n_clean=int((~backdoored).sum()),
        n_backdoored=int(backdoored.sum()),
        n_triggers=len(set(triggers[backdoored])),
        seeds=tuple(seeds),
        **rates,
    )


def _check(zoo: Zoo, detectors: Mapping[str, Detector], fpr: float) -> None:
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


def _with_images(detector: Detector, zoo: Zoo, images: Split | None) -> Detector:
    if not isinstance(detector, InversionDetector) or detector.clean is not None:
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
        kinds = {m.entry.backdoored for m in members}
        if kinds != {True, False}:
            continue
        rows.append(
            detection_row(
                [m.entry for m in members],
                np.array([m.judgement.score for m in members]),
                detector=label,
                num_patterns=getattr(detector, "num_patterns", None),
                seeds=[detector.scope["seed"]] if "seed" in detector.scope else [],
                group=group,
                against=against,
                bootstrap_seed=seed,
                fpr=fpr,
                **_rates(members),
            )
        )
    return rows


def _rates(models: Sequence[ModelJudgement]) -> dict[str, float]:
    bad = np.array([m.entry.backdoored for m in models])
    flagged = np.array([m.judgement.verdict == "suspicious" for m in models])
    unsure = np.array([m.judgement.verdict == "inconclusive" for m in models])
    return {
        "flagged_clean": float(flagged[~bad].mean()),
        "flagged_backdoored": float(flagged[bad].mean()),
        "inconclusive_clean": float(unsure[~bad].mean()),
        "inconclusive_backdoored": float(unsure[bad].mean()),
        "calibration_error": expected_calibration_error(
            [m.judgement.probability for m in models], bad
        ),
    }
