"""Scan results as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litmus.detectors import Detector
from litmus.detectors.candidates import Candidates
from litmus.metrics import benjamini_hochberg
from litmus.reports.console import render_table
from litmus.scanning import Failed, ScanResult, Scored, Skipped
from litmus.scanning.results import printable

__all__ = ["SCAN_REPORTS", "ScanContext", "scan_json", "scan_text"]

SCHEMA_VERSION: Final = 1
_HEADER: Final = ("model", "verdict", "p-value", "score", "probability", "detector")


@dataclass(frozen=True, kw_only=True)
class ScanContext:
    """What the results stand beside: the detectors that could be used, and the options."""

    candidates: Candidates
    fpr: float
    show_skipped: bool = False

    def used(self, results: Sequence[ScanResult]) -> dict[str, Detector]:
        """Return the detectors that judged a file; the one that was named in any case."""
        names = {result.detector for result in results if isinstance(result, Scored)}
        return {
            name: detector
            for name, detector in self.candidates.detectors.items()
            if name in names or self.candidates.named
        }


def scan_json(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return the report as JSON; `schema_version` grows when a field changes its meaning."""
    q_values = _q_values(results)
    content = {
        "schema_version": SCHEMA_VERSION,
        "detectors": [
            _detector(name, detector, context) for name, detector in context.used(results).items()
        ],
        "fpr": context.fpr,
        "results": [_result(result, q_values) for result in results],
        "summary": _summary(results),
    }
    return json.dumps(content, indent=1) + "\n"


def scan_text(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return the report for a terminal."""
    scored = [result for result in results if isinstance(result, Scored)]
    parts = []
    if scored:
        rows = [
            [
                str(r.path),
                r.verdict,
                f"{r.p_value:.4f}",
                f"{r.score:+.2f}",
                f"{r.probability:.2f}",
                r.detector,
            ]
            for r in scored
        ]
        parts.append(render_table(_HEADER, rows))
        parts += [f"{printable(str(r.path))}: {note}\n" for r in scored for note in r.notes]
    parts += [
        f"FAILED {printable(str(r.path))}: {r.error}\n" for r in results if isinstance(r, Failed)
    ]
    if context.show_skipped or not scored:
        parts += [
            f"skipped {printable(str(r.path))}: {r.reason}\n"
            for r in results
            if isinstance(r, Skipped)
        ]
    return "".join(parts) + _closing(results, context)


SCAN_REPORTS: Final[Mapping[str, Callable[[Sequence[ScanResult], ScanContext], str]]] = {
    "text": scan_text,
    "json": scan_json,
}


def _closing(results: Sequence[ScanResult], context: ScanContext) -> str:
    s = _summary(results)
    lines = [
        f"{s['suspicious']} suspicious, {s['no_evidence_found']} without evidence, "
        f"{s['inconclusive']} inconclusive, {s['skipped']} skipped, {s['failed']} failed"
    ]
    if s["scored"]:
        lines.append(
            f"A model is suspicious at p <= {context.fpr:g}: about {context.fpr:.0%} of clean "
            "models like those of the detector's zoo would be, too."
        )
        lines += [_calibrated(name, each) for name, each in context.used(results).items()]
        lines.append("'No evidence found' does not mean that there is no backdoor.")
    return "\n".join(lines) + "\n"


def _calibrated(name: str, detector: Detector) -> str:
    calibration = detector.calibration
    return (
        f"Detector {name} ({detector.scope.get('dataset', '?')}, {detector.input_spec}): "
        f"calibrated on n = {len(calibration.scores)} clean models, "
        f"smallest p {calibration.smallest_p_value:.4f}."
    )


def _detector(name: str, detector: Detector, context: ScanContext) -> dict[str, Any]:
    return {
        "name": name,
        "picked_by": "name" if context.candidates.named else "shape",
        "kind": detector.name,
        "sha256": context.candidates.sha256[name],
        "input_spec": detector.input_spec.to_json(),
        "scope": dict(detector.scope),
        "held_out": dict(detector.held_out),
        "n_calibration": len(detector.calibration.scores),
        "smallest_p_value": detector.calibration.smallest_p_value,
    }


def _result(result: ScanResult, q_values: Mapping[int, float]) -> dict[str, Any]:
    path = str(result.path)
    if isinstance(result, Skipped):
        return {"path": path, "status": "skipped", "reason": result.reason}
    if isinstance(result, Failed):
        return {"path": path, "status": "failed", "reason": result.error}
    return {
        "path": path,
        "status": "scored",
        "score": result.score,
        "p_value": result.p_value,
        "q_value": q_values[id(result)],
        "probability": result.probability,
        "verdict": result.verdict,
        "notes": list(result.notes),
        "seconds": result.seconds,
        "model_sha256": result.model_sha256,
        "detector": result.detector,
        "detector_sha256": result.detector_sha256,
    }


def _q_values(results: Sequence[ScanResult]) -> dict[int, float]:
    scored = [result for result in results if isinstance(result, Scored)]
    q = benjamini_hochberg([result.p_value for result in scored])
    return {id(result): float(value) for result, value in zip(scored, q, strict=True)}


def _summary(results: Sequence[ScanResult]) -> dict[str, int]:
    verdicts = [result.verdict for result in results if isinstance(result, Scored)]
    return {
        "files": len(results),
        "scored": len(verdicts),
        "suspicious": verdicts.count("suspicious"),
        "no_evidence_found": verdicts.count("no evidence found"),
        "inconclusive": verdicts.count("inconclusive"),
        "skipped": sum(isinstance(result, Skipped) for result in results),
        "failed": sum(isinstance(result, Failed) for result in results),
    }
