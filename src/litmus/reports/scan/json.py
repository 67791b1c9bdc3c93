"""A scan's results as JSON, and the schema that they follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from litmus.detectors import Detector
from litmus.detectors.evidence import Evidence
from litmus.reports.scan.content import Entry, ScanContext, annotate, sandbox_json, summary
from litmus.scanning import Failed, ScanResult, Scored, Skipped

__all__ = ["SCHEMA_VERSION", "json_schema", "scan_json"]

SCHEMA_VERSION: Final = 1
"""Grows when a field changes its meaning or goes; new fields may come without."""

_LONG: Final = ("recipe", "triggers")
"""Of a detector's scope: `litmus detectors` has it all."""


def scan_json(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return the report as JSON that follows `json_schema`."""
    entries = annotate(results, context)
    content = {
        "schema_version": SCHEMA_VERSION,
        "versions": dict(context.versions),
        "finished": context.finished.isoformat() if context.finished else None,
        "detectors": [
            _detector(name, detector, context) for name, detector in context.used(results).items()
        ],
        "fpr": context.fpr,
        "results": [_result(entry, context) for entry in entries],
        "summary": summary(entries),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the report."""
    file = resources.files("litmus.reports.scan") / "schema.json"
    return file.read_text(encoding="utf-8")


def _detector(name: str, detector: Detector, context: ScanContext) -> dict[str, Any]:
    return {
        "name": name,
        "picked_by": "name" if context.candidates.named else "shape",
        "kind": detector.name,
        "sha256": context.candidates.sha256[name],
        "input_spec": detector.input_spec.to_json(),
        "scope": {key: value for key, value in detector.scope.items() if key not in _LONG},
        "held_out": dict(detector.held_out),
        "n_calibration": len(detector.calibration.scores),
        "smallest_p_value": detector.calibration.smallest_p_value,
    }


def _result(entry: Entry, context: ScanContext) -> dict[str, Any]:
    result = entry.result
    # Bytes that are no UTF-8 come as lone surrogates, which no JSON parser has to take.
    path = str(result.path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    known = {"path": path, "sandbox": sandbox_json(result.sandbox)}
    if isinstance(result, Skipped):
        return {**known, "status": "skipped", "reason": result.reason}
    if isinstance(result, Failed):
        return {**known, "status": "failed", "reason": result.error}
    return {
        **known,
        "status": "scored",
        "verdict": result.verdict,
        "accepted": entry.accepted,
        "p_value": result.p_value,
        "q_value": entry.q_value,
        "score": result.score,
        "member_scores": list(result.member_scores),
        "probability": result.probability,
        "notes": list(result.notes),
        "out_of_scope": list(result.out_of_scope),
        "format": result.format,
        "seconds": result.seconds,
        "model_sha256": result.model_sha256,
        "external_sha256": dict(result.external_sha256),
        "detector": result.detector,
        "detector_sha256": result.detector_sha256,
        "parts": list(result.parts),
        "n_calibration": len(context.calibration(result).scores),
        "evidence": None if result.evidence is None else _evidence(result, result.evidence),
    }


def _evidence(result: Scored, evidence: Evidence) -> dict[str, Any]:
    return {
        "words": evidence.words(result.classes),
        "success": evidence.success,
        **evidence.to_json(),
    }
