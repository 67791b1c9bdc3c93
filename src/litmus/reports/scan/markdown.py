"""A scan's results as Markdown, for a pull request or a wiki."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from litmus.reports.scan.content import (
    CAVEAT,
    Entry,
    ScanContext,
    annotate,
    counts_text,
    digest_text,
    headline,
    p_sentence,
    q_sentence,
    sandbox_sentence,
    scope_facts,
    threshold_sentence,
    verdict_text,
)
from litmus.scanning import Failed, ScanResult, Scored, Skipped
from litmus.scanning.results import printable

__all__ = ["scan_markdown"]

_PLAIN: Final = re.compile(r"(?!.*www\.)(?:[A-Za-z0-9 ,.;()'=+%?>-]|: )*", re.IGNORECASE)
"""What no reader takes for markup, links, or somebody's name."""


def scan_markdown(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return a page with a table of all files, the findings one by one, and the detectors."""
    entries = annotate(results, context)
    scored = [entry for entry in entries if isinstance(entry.result, Scored)]
    parts = ["# Litmus scan", f"**{headline(entries)}.** In all: {counts_text(entries)}."]
    if scored:
        parts += [_table(scored), threshold_sentence(context).replace("<=", "≤")]
        parts += [q_sentence()] if len(scored) > 1 else []
        parts.append(CAVEAT)
    if lacking := sandbox_sentence(r.sandbox for r in results):
        parts.append(lacking)
    findings = [entry for entry in scored if _verdict(entry) != "no evidence found"]
    if findings:
        parts.append("## Findings")
        parts += [_finding(entry, context) for entry in findings]
    if others := [entry for entry in scored if entry not in findings]:
        parts += ["## Notes on the others", "\n".join(map(_notes, others))]
    unscanned = [entry.result for entry in entries if not isinstance(entry.result, Scored)]
    if unscanned:
        parts += ["## Not scanned", "\n".join(map(_unscanned, unscanned))]
    if detectors := context.used(results):
        parts.append("## Detectors")
    for name, detector in detectors.items():
        facts = scope_facts(detector, context.asked(name, results))
        facts["SHA-256"] = context.candidates.sha256[name]
        lines = [f"- {key}: {_literal(value)}" for key, value in facts.items()]
        parts.append(f"### {_literal(name)}\n\n" + "\n".join(lines))
    if context.versions:
        parts.append(", ".join(f"{name} {version}" for name, version in context.versions.items()))
    return "\n\n".join(parts) + "\n"


def _verdict(entry: Entry) -> str:
    assert isinstance(entry.result, Scored)
    return entry.result.verdict


def _table(scored: Sequence[Entry]) -> str:
    several = len(scored) > 1
    header = ["model", "verdict", "p-value", *(["q"] if several else []), "score", "detector"]
    lines = [header, ["---"] * len(header)]
    for entry in scored:
        result = entry.result
        assert isinstance(result, Scored)
        emphasis = "**" if entry.counts else ""
        lines.append(
            [
                _cell(str(result.path)),
                f"{emphasis}{verdict_text(entry)}{emphasis}",
                f"{result.p_value:.4f}",
                *([f"{entry.q_value:.4f}"] if several else []),
                f"{result.score:+.2f}",
                _cell(result.detector),
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _finding(entry: Entry, context: ScanContext) -> str:
    result = entry.result
    assert isinstance(result, Scored)
    lines = [
        f"### {verdict_text(entry)}: {_literal(str(result.path), always=True)}",
        "",
        p_sentence(result, context).replace("<=", "≤"),
        "",
        *(f"- {_literal(note)}" for note in result.notes),
        f"- SHA-256 {_literal(digest_text(result), always=True)}",
    ]
    return "\n".join(lines)


def _notes(entry: Entry) -> str:
    assert isinstance(entry.result, Scored)
    notes = "; ".join(_literal(note) for note in entry.result.notes)
    return f"- {_literal(str(entry.result.path), always=True)}: {notes}"


def _unscanned(result: Skipped | Failed) -> str:
    kind, why = (
        ("failed", result.error) if isinstance(result, Failed) else ("skipped", result.reason)
    )
    return f"- {kind}: {_literal(str(result.path), always=True)}: {_literal(why)}"


def _literal(text: str, *, always: bool = False) -> str:
    """Return a text that a hostile file may have chosen so that it reads as it is.

    All but plain words become code, in which nothing is markup, no link is one and nobody is
    called.
    """
    shown = printable(text)
    if not always and _PLAIN.fullmatch(shown):
        return shown
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    space = " " if shown[:1] in "` " or shown[-1:] in "` " else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _cell(text: str) -> str:
    """Return a text for a cell of a table, where readers differ about escaped bars."""
    return _literal(text.replace("|", "¦"), always=True)
