"""Detectors as text: what they are for and how well they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from litmus.detectors import Detector
from litmus.reports.console import render_table

__all__ = ["detectors_table", "fitted_text", "held_out_sentence"]


def detectors_table(detectors: Mapping[str, Detector]) -> str:
    """Return one line a detector: name, scope, its AUC on models that its members had not seen."""
    header = ["name", "detector", "for", "architectures", "attacks", "held-out AUC", "smallest p"]
    rows = [
        [
            name,
            f"{detector.name}, {detector.scope.get('num_models', '?')} models",
            f"{detector.scope.get('dataset', '?')}: {detector.input_spec}",
            ", ".join(detector.scope.get("architectures", [])),
            "; ".join(detector.scope.get("attacks", [])),
            held_out_sentence(detector),
            f"{detector.calibration.smallest_p_value:.4f}",
        ]
        for name, detector in detectors.items()
    ]
    return render_table(header, rows)


def held_out_sentence(detector: Detector) -> str:
    """Return `0.98 (0.95 to 1.00) on 60 clean + 60 backdoored models`."""
    held = detector.held_out
    return (
        f"{held['auc']:.3f} ({held['auc_low']:.3f} to {held['auc_high']:.3f}) on "
        f"{held['n_clean']} clean + {held['n_backdoored']} backdoored models"
    )


def fitted_text(detector: Detector, path: Path) -> str:
    """Return what `litmus fit` says at the end."""
    n = len(detector.calibration.scores)
    smallest = detector.calibration.smallest_p_value
    fpr = max(0.05, smallest)
    return (
        f"wrote {path}\n"
        f"held-out AUC (same triggers, models that no member had seen): "
        f"{held_out_sentence(detector)}\n"
        f"calibrated on n = {n} clean models: the smallest p-value is {smallest:.4f}, "
        f"and so is the smallest --fpr\n"
        f"score threshold at a false-positive rate of {fpr:.2g}: about "
        f"{detector.calibration.threshold(fpr):+.2f}\n"
        f"now measure it on unseen triggers: litmus evaluate ZOO --detector {path}\n"
    )
