"""Rows of a detection table: AUC with intervals, rates at a threshold, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litmus.detectors import Detector, Judgement
from litmus.metrics import (
    accuracy,
    auc,
    auc_interval,
    expected_calibration_error,
    tpr_at_fpr,
)
from litmus.zoo import ZooEntry

__all__ = [
    "DetectionRow",
    "ModelJudgement",
    "detection_row",
    "judge_model",
    "judged_row",
    "verdict_rates",
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


def judge_model(detector: Detector, entry: ZooEntry, fpr: float) -> ModelJudgement:
    """Return what a detector says of a zoo's model at a false-positive rate."""
    return ModelJudgement(entry=entry, judgement=detector.examine_entry(entry, fpr=fpr))


def detection_row(
    entries: Sequence[ZooEntry],
    scores: NDArray[np.float64],
    *,
    detector: str,
    num_patterns: int | None,
    seeds: Sequence[int],
    group: str = "all",
    against: str = "clean",
    leave_out: str | None = None,
    strata: Sequence[str] | None = None,
    bootstrap_seed: int = 0,
    **rates: float | None,
) -> DetectionRow:
    """Summarise scores (n,), or (seeds, n) for the mean over seeds, of these models.

    With `strata` (n,), a backdoored model is compared with the clean ones of its stratum alone,
    and there are no rates at a threshold on the scores.
    """
    backdoored = np.array([entry.backdoored for entry in entries])
    triggers = np.array([entry.trigger_id for entry in entries])
    per_seed = np.atleast_2d(scores)
    interval = auc_interval(scores, backdoored, triggers, strata=strata, seed=bootstrap_seed)

    def mean_tpr(rate: float) -> float | None:
        if strata is not None:
            return None
        values = [tpr_at_fpr(row, backdoored, rate) for row in per_seed]
        return None if None in values else float(np.mean(values))  # type: ignore[arg-type]

    return DetectionRow(
        dataset=str(entries[0].spec.dataset["name"]),
        detector=detector,
        num_patterns=num_patterns,
        group=group,
        leave_out=leave_out,
        against=against,
        accuracy=float(np.mean([accuracy(row, backdoored) for row in per_seed])),
        auc=auc(scores, backdoored, strata),
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


def judged_row(
    label: str,
    detector: Detector,
    models: Sequence[ModelJudgement],
    *,
    fpr: float,
    seed: int = 0,
    **names: Any,
) -> DetectionRow:
    """Summarise what one detector said of models; `names` are `group`, `against`, `leave_out`."""
    return detection_row(
        [m.entry for m in models],
        np.array([m.judgement.score for m in models]),
        detector=label,
        num_patterns=getattr(detector, "num_patterns", None),
        seeds=[detector.scope["seed"]] if "seed" in detector.scope else [],
        bootstrap_seed=seed,
        fpr=fpr,
        **names,
        **verdict_rates(models),
    )


def verdict_rates(models: Sequence[ModelJudgement]) -> dict[str, Any]:
    """Return the shares flagged and inconclusive of each kind, and the calibration error."""
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
