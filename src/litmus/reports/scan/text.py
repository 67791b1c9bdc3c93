"""A scan's results for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from litmus.reports.console import render_table
from litmus.reports.scan.content import (
    CAVEAT,
    Entry,
    ScanContext,
    annotate,
    calibration_text,
    counts_text,
    p_sentence,
    path_text,
    probability_text,
    q_sentence,
    sandbox_sentence,
    threshold_sentence,
    verdict_text,
)
from litmus.scanning import Failed, ScanResult, Scored, Skipped
from litmus.scanning.results import printable

__all__ = ["scan_text"]

_ROOMY: Final = 80  # columns
_COLOURS: Final = {"suspicious": "bold red", "inconclusive": "yellow", "no evidence found": "green"}


def scan_text(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return the report for a terminal; a quiet one has what needs a look, or nothing."""
    entries = annotate(results, context)
    if context.quiet:
        return _table([e for e in entries if e.counts], context) + _failures(entries, context)
    parts = [_table(entries, context)]
    parts += [
        f"{path_text(entry.result)}: {printable(note)}\n"
        for entry in entries
        if isinstance(entry.result, Scored)
        for note in entry.result.notes
    ]
    return "".join(parts) + _failures(entries, context) + _closing(entries, context)


def _table(entries: Sequence[Entry], context: ScanContext) -> str:
    scored = [(entry, entry.result) for entry in entries if isinstance(entry.result, Scored)]
    if not scored:
        return ""
    several = len(scored) > 1
    header = ["model", "verdict", "p-value", *(["q"] if several else [])]
    rows = [
        [
            str(result.path),
            verdict_text(entry),
            f"{result.p_value:.4f}",
            *([f"{entry.q_value:.4f}"] if several else []),
            f"{result.score:+.2f}",
            probability_text(result),
            result.detector,
        ]
        for entry, result in scored
    ]
    styles = ["dim" if entry.accepted else _COLOURS[result.verdict] for entry, result in scored]
    return render_table(
        [*header, "score", "probability", "detector"],
        rows,
        width=context.width,
        colour=context.colour,
        styles={1: styles},
        whole={1} if context.width >= _ROOMY else (),
    )


def _failures(entries: Sequence[Entry], context: ScanContext) -> str:
    nothing_scored = not any(isinstance(entry.result, Scored) for entry in entries)
    show_skipped = context.show_skipped or context.strict or (nothing_scored and not context.quiet)
    lines = [
        f"FAILED {path_text(entry.result)}: {printable(entry.result.error)}\n"
        for entry in entries
        if isinstance(entry.result, Failed)
    ]
    lines += [
        f"skipped {path_text(entry.result)}: {printable(entry.result.reason)}\n"
        for entry in entries
        if isinstance(entry.result, Skipped) and show_skipped
    ]
    return "".join(lines)


def _closing(entries: Sequence[Entry], context: ScanContext) -> str:
    lines = [counts_text(entries)]
    results = [entry.result for entry in entries]
    scored = [result for result in results if isinstance(result, Scored)]
    if scored:
        lines.append(
            p_sentence(scored[0], context) if len(scored) == 1 else threshold_sentence(context)
        )
        judged_by = dict.fromkeys((result.detector, result.parts) for result in scored)
        lines += [_calibrated(name, parts, context) for name, parts in judged_by]
        lines += [q_sentence()] if len(scored) > 1 else []
        lines.append(CAVEAT)
    if lacking := sandbox_sentence(r.sandbox for r in results):
        lines.append(lacking)
    return "\n".join(lines) + "\n"


def _calibrated(name: str, parts: Sequence[str], context: ScanContext) -> str:
    """What judged a file: each set of a fused detector's parts has a calibration of its own."""
    detector = context.candidates.detectors[name]
    asked = f", parts {', '.join(parts)}" if parts else ""
    return (
        f"Detector {name} ({detector.scope.get('dataset', '?')}, {detector.input_spec}){asked}: "
        f"calibrated on {calibration_text(detector.calibration_of(parts))}."
    )
