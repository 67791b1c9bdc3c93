"""Detectors as text: what they are for and how well they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from litmus.detectors import DETECTORS, Detector
from litmus.reports.console import render_table

__all__ = ["detectors_table", "fitted_text", "held_out_sentence"]

_BY_PARTS: Final = ["parts", "asked by scan", "held-out AUC", "smallest p"]


def detectors_table(detectors: Mapping[str, Detector]) -> str:
    """Return one line a detector: name, scope, its AUC on models that its members had not seen.

    A second table has the sets of parts of those that have parts.
    """
    header = ["name", "detector", "for", "architectures", "attacks", "held-out AUC", "smallest p"]
    rows = [
        [
            name,
            f"{detector.name}, {detector.scope.get('num_models', '?')} models",
            f"{detector.scope.get('dataset', '?')}: {detector.input_spec}",
            ", ".join(detector.scope.get("architectures", [])),
            "; ".join(detector.scope.get("attacks", [])),
            held_out_sentence(detector.held_out),
            f"{detector.calibration.smallest_p_value:.4f}",
        ]
        for name, detector in detectors.items()
    ]
    parts = [
        [name, *row] for name, detector in detectors.items() for row in _rows_by_parts(detector)
    ]
    text = render_table(header, rows)
    return text + ("\n" + render_table(["name", *_BY_PARTS], parts) if parts else "")


def held_out_sentence(held_out: Mapping[str, Any]) -> str:
    """Return `0.98 (0.95 to 1.00) on 60 clean + 60 backdoored models`."""
    return (
        f"{held_out['auc']:.3f} ({held_out['auc_low']:.3f} to {held_out['auc_high']:.3f}) on "
        f"{held_out['n_clean']} clean + {held_out['n_backdoored']} backdoored models"
    )


def fitted_text(detector: Detector, path: Path) -> str:
    """Return what `litmus fit` says at the end."""
    n = len(detector.calibration.scores)
    smallest = detector.calibration.smallest_p_value
    fpr = max(0.05, smallest)
    by_parts = _rows_by_parts(detector)
    return (
        f"wrote {path}\n"
        f"held-out AUC (same triggers, models that no member had seen): "
        f"{held_out_sentence(detector.held_out)}\n"
        f"calibrated on n = {n} clean models: the smallest p-value is {smallest:.4f}, "
        f"and so is the smallest --fpr\n"
        f"score threshold at a false-positive rate of {fpr:.2g}: about "
        f"{detector.calibration.threshold(fpr):+.2f}\n"
        + (f"by what a scan may ask:\n{render_table(_BY_PARTS, by_parts)}" if by_parts else "")
        + f"now measure it on unseen triggers: litmus evaluate ZOO --detector {path}\n"
    )


def _rows_by_parts(detector: Detector) -> list[list[str]]:
    return [
        [
            ", ".join(parts),
            _asked_by(parts),
            held_out_sentence(held_out),
            f"{1 / (held_out['n_clean'] + 1):.4f}",
        ]
        for parts, held_out in detector.held_out_by_parts().items()
    ]


def _asked_by(parts: tuple[str, ...]) -> str:
    """The options with which a scan asks these parts."""
    kinds = [DETECTORS[part] for part in parts]
    if any(kind.needs_images for kind in kinds):
        return "--thorough --images"
    return "--thorough" if any(kind.needs_gradients for kind in kinds) else ""
