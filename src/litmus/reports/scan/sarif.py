"""A scan's results as SARIF 2.1.0, for code-scanning pages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from litmus.detectors.evidence import Evidence
from litmus.reports.scan.content import (
    CAVEAT,
    Entry,
    ScanContext,
    annotate,
    headline,
    p_sentence,
    path_text,
    sandbox_held,
    sandbox_sentence,
)
from litmus.scanning import Failed, ScanResult, Scored, Skipped, exit_code
from litmus.scanning.targets import Address

__all__ = ["scan_sarif"]

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_PAPER: Final = "https://arxiv.org/abs/1906.10842"
_ROOT: Final = "SRCROOT"


def _rule(
    identity: str, name: str, level: str, short: str, full: str, help_: str, **properties: object
) -> dict[str, Any]:
    return {
        "id": identity,
        "name": name,
        "shortDescription": {"text": short},
        "fullDescription": {"text": full},
        "help": {"text": help_},
        "helpUri": _PAPER,
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["security", "machine-learning"], **properties},
    }


_RULES: Final = {
    "suspicious": _rule(
        "LITMUS001",
        "BackdoorSuspected",
        "error",
        "The model answers as backdoored models do",
        "The answers of the model to litmus patterns are such as few clean models give: its "
        "p-value is at or below the false-positive rate of the scan.",
        "This is a suspicion and no proof: at a false-positive rate of 5 % one clean model in "
        "twenty is flagged. Ask the supplier where the file is from, compare its SHA-256, look at "
        "the HTML report, and train anew from data that you trust if you can. A finding that was "
        "looked into can be accepted by --baseline.",
        # Of those that code-scanning pages rank by: high.
        **{"security-severity": "7.5", "precision": "medium", "problem.severity": "error"},
    ),
    "inconclusive": _rule(
        "LITMUS002",
        "ModelOutOfScope",
        "warning",
        "The model behaves unlike any that the detector knows",
        "The answers of the model lie so far from those of all models that the detector was "
        "fitted on that no verdict is given.",
        "Check that the file is scanned with its own scaling, mean, std and order of channels "
        "(a wrong range makes models look strange), or fit a detector on models like this one. "
        + CAVEAT,
        **{"security-severity": "4.0", "precision": "low", "problem.severity": "warning"},
    ),
    "unscanned": _rule(
        "LITMUS003",
        "ModelNotScanned",
        "note",
        "The file could not be scanned",
        "The file is broken, missing, of a kind that Litmus does not scan, or took more than its "
        "limits; nothing is known of it.",
        "The message says why. Export the model to ONNX where its format is the reason.",
    ),
}
_INDEX: Final = {kind: i for i, kind in enumerate(_RULES)}


def scan_sarif(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return a log of one run.

    What is suspicious is an error, what is inconclusive a warning, and what failed a notification
    of the tool and a note; so is what was skipped, where that is an error. Files without a finding
    are listed as artifacts alone, since pages show every result as an alert.
    """
    entries = annotate(results, context)
    run = {
        "tool": {"driver": _driver(context)},
        "invocations": [_invocation(entries, context)],
        "originalUriBaseIds": {
            _ROOT: {"description": {"text": "The folder in which the scan was started."}}
        },
        "artifacts": [_artifact(entry.result, context) for entry in entries],
        "results": [
            _result(entry, index, context)
            for index, entry in enumerate(entries)
            if _kind(entry.result, context)
        ],
        "properties": {
            "fpr": context.fpr,
            "headline": headline(entries),
            "sandbox": sandbox_held(r.sandbox for r in results),
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, allow_nan=False) + "\n"


def _driver(context: ScanContext) -> dict[str, Any]:
    versions = dict(context.versions)
    version = {"version": versions["litmus"]} if "litmus" in versions else {}
    return {
        "name": "Litmus",
        **version,
        "informationUri": _PAPER,
        "rules": list(_RULES.values()),
        "properties": {"versions": versions},
    }


def _kind(result: ScanResult, context: ScanContext) -> str:
    """The key of a result's rule; empty where it is no finding."""
    if isinstance(result, Scored):
        return result.verdict if result.verdict in _RULES else ""
    return "unscanned" if isinstance(result, Failed) or context.strict else ""


def _invocation(entries: Sequence[Entry], context: ScanContext) -> dict[str, Any]:
    results = [entry.result for entry in entries]
    code = exit_code(
        results, strict=context.strict, fail_on=context.fail_on, baseline=context.baseline
    )
    lacking = sandbox_sentence(r.sandbox for r in results)
    ended = context.finished and context.finished.astimezone(UTC)
    return {
        "executionSuccessful": not any(isinstance(result, Failed) for result in results),
        "exitCode": code,
        **({"endTimeUtc": ended.strftime("%Y-%m-%dT%H:%M:%SZ")} if ended else {}),
        "toolExecutionNotifications": [
            {
                "descriptor": {"id": _RULES["unscanned"]["id"]},
                "level": "error" if isinstance(result, Failed) else "note",
                "message": {"text": _literal(_unscanned(result))},
                "locations": [_location(result, index, context)],
            }
            for index, result in enumerate(results)
            if not isinstance(result, Scored)
        ],
        **({"toolConfigurationNotifications": [_warning(lacking)]} if lacking else {}),
    }


def _warning(text: str) -> dict[str, Any]:
    return {"level": "warning", "message": {"text": _literal(text)}}


def _artifact(result: ScanResult, context: ScanContext) -> dict[str, Any]:
    digest = result.model_sha256 if isinstance(result, Scored) else None
    hashes = {"hashes": {"sha-256": digest}} if digest else {}
    return {"location": _where(result.path, context), "roles": ["analysisTarget"], **hashes}


def _result(entry: Entry, index: int, context: ScanContext) -> dict[str, Any]:
    result = entry.result
    kind = _kind(result, context)
    known = [{"kind": "external", "status": "accepted", "justification": "In the baseline."}]
    return {
        "ruleId": _RULES[kind]["id"],
        "ruleIndex": _INDEX[kind],
        "level": _RULES[kind]["defaultConfiguration"]["level"],
        "message": {"text": _literal(_message(result, context))},
        "locations": [_location(result, index, context)],
        **(_facts(entry) if isinstance(result, Scored) else {}),
        # Where there is no baseline, nothing is known about suppression.
        **({"suppressions": known if entry.accepted else []} if context.baseline else {}),
    }


def _facts(entry: Entry) -> dict[str, Any]:
    result = entry.result
    assert isinstance(result, Scored)
    return {
        "partialFingerprints": {
            **({"modelSha256/v1": result.model_sha256} if result.model_sha256 else {}),
            # The only one that GitHub reads; it would take the text of a line otherwise.
            "primaryLocationLineHash": f"{result.model_sha256 or result.path}:1",
        },
        "properties": {
            "p_value": result.p_value,
            "q_value": entry.q_value,
            "score": result.score,
            "probability": result.probability,
            "detector": result.detector,
            "detector_sha256": result.detector_sha256,
            "parts": list(result.parts),
            "notes": list(result.notes),
            **({"evidence": _evidence(result.evidence)} if result.evidence else {}),
        },
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    """What was found, less its pictures: pages that show alerts do not draw them."""
    pictures = ("mask", "pattern", "before", "after", "answers")
    return {name: value for name, value in evidence.to_json().items() if name not in pictures}


def _message(result: ScanResult, context: ScanContext) -> str:
    if not isinstance(result, Scored):
        return _unscanned(result)
    reasons = "".join(f" {why[:1].upper()}{why[1:]}." for why in result.out_of_scope)
    verdict = result.verdict.capitalize()
    found = f" Found: {result.evidence.words(result.classes)}." if result.evidence else ""
    return f"{verdict}: {path_text(result)}.{reasons} {p_sentence(result, context)}{found}"


def _unscanned(result: Skipped | Failed) -> str:
    if isinstance(result, Failed):
        return f"Failed: {path_text(result)}: {result.error}"
    return f"Skipped: {path_text(result)}: {result.reason}"


def _literal(text: str) -> str:
    """A message in which no part that a hostile file chose is a link or a placeholder."""
    return re.sub(r"\{(\d+)\}", r"{{\1}}", text.replace("](", "] ("))


def _location(result: ScanResult, index: int, context: ScanContext) -> dict[str, Any]:
    where = {**_where(result.path, context), "index": index}
    # A model has no lines, but pages that show alerts by line ask for one.
    return {"physicalLocation": {"artifactLocation": where, "region": {"startLine": 1}}}


def _where(path: Path | Address, context: ScanContext) -> dict[str, str]:
    """A path below the root is relative to it; any other is whole."""
    if isinstance(path, Address):
        return {"uri": path.url}
    root = context.root
    if root is not None:
        whole = Path(os.path.normpath(root / path))
        if not whole.is_relative_to(root):
            return {"uri": "file://" + _quoted(whole)}
        path = whole.relative_to(root)
    return {"uri": _quoted(path), "uriBaseId": _ROOT}


def _quoted(path: Path) -> str:
    return quote(os.fsencode(path.as_posix()))
