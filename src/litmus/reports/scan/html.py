"""A scan's results as one HTML page that needs nothing else: no script, no file, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from litmus.detectors import Detector
from litmus.reports.scan.content import (
    CAVEAT,
    Entry,
    ScanContext,
    annotate,
    digest_text,
    headline,
    p_sentence,
    path_text,
    probability_text,
    q_sentence,
    sandbox_sentence,
    scope_facts,
    summary,
    threshold_sentence,
    verdict_text,
)
from litmus.reports.scan.found import Found, found
from litmus.reports.scan.heatmap import Answers, answers
from litmus.reports.scan.histogram import Histogram, histogram
from litmus.reports.scan.pictures import PALETTE, png_uri
from litmus.scanning import Failed, ScanResult, Scored, Skipped
from litmus.scanning.results import printable

__all__ = ["scan_html"]

_MOST_DETAILED: Final = 50
"""So many files are told in full, the most suspicious first; the table has all of them."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A file in the table; `anchor` leads to its details, where there are any."""

    path: str
    kind: str
    verdict: str
    anchor: str = ""
    p_value: str = ""
    q_value: str = ""
    score: str = ""
    detector: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class _Details:
    """What the page tells of one scored file."""

    anchor: str
    path: str
    name: str
    kind: str
    verdict: str
    reasons: Sequence[str]
    sentence: str
    numbers: Mapping[str, str]
    plot: Histogram
    answers: Answers | None
    pictures: str
    found: Found | None
    notes: Sequence[str]
    facts: Mapping[str, str]


def scan_html(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return the page, findings first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    entries = sorted(annotate(results, context), key=_urgency)
    scored = [entry for entry in entries if isinstance(entry.result, Scored)]
    detailed = {id(entry): f"file-{i}" for i, entry in enumerate(scored[:_MOST_DETAILED])}
    detectors = context.used(results)
    pictures = {name: f"d{i}" for i, name in enumerate(detectors)}
    css = _css({pictures[name]: detector for name, detector in detectors.items()})
    environment = Environment(
        loader=PackageLoader("litmus", "reports/scan"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        headline=headline(entries),
        tone=_tone(entries),
        chips=_chips(entries),
        threshold=_typeset(threshold_sentence(context)),
        caveat=CAVEAT,
        sandbox=sandbox_sentence(r.sandbox for r in results),
        q_text=q_sentence() if len(scored) > 1 else "",
        rows=[_row(entry, detailed.get(id(entry), "")) for entry in entries],
        details=[
            _details(entry, detailed[id(entry)], pictures, context, several=len(scored) > 1)
            for entry in scored[:_MOST_DETAILED]
        ],
        left_out=max(0, len(scored) - _MOST_DETAILED),
        detectors=[
            _detector(name, detector, pictures[name], context, context.asked(name, results))
            for name, detector in detectors.items()
        ],
        fpr=f"{context.fpr:g}",
        palette=PALETTE,
        finished=context.finished.strftime("%Y-%m-%d %H:%M %Z") if context.finished else "",
        versions=context.versions,
    )
    return page + "\n"


def _urgency(entry: Entry) -> tuple[int, float]:
    """What counts comes first, then what failed, what is inconclusive, and the rest."""
    result = entry.result
    if isinstance(result, Failed):
        return 1, 0.0
    if isinstance(result, Skipped):
        return 4, 0.0
    rank = {"suspicious": 0, "inconclusive": 2, "no evidence found": 3}[result.verdict]
    return (0 if entry.counts else max(rank, 2 * entry.accepted)), result.p_value


def _tone(entries: Sequence[Entry]) -> str:
    """The page's colour: that of the worst that nobody has accepted."""
    kinds = {_kind(entry) for entry in entries}
    return next((k for k in ("suspicious", "failed", "inconclusive") if k in kinds), "plain")


def _kind(entry: Entry) -> str:
    result = entry.result
    if not isinstance(result, Scored):
        return "failed" if isinstance(result, Failed) else "skipped"
    return "accepted" if entry.accepted else result.verdict.replace(" ", "-")


def _chips(entries: Sequence[Entry]) -> list[tuple[str, int, str]]:
    counts = summary(entries)
    names = {
        "suspicious": "suspicious",
        "inconclusive": "inconclusive",
        "no_evidence_found": "no evidence found",
        "failed": "failed",
        "skipped": "skipped",
        "accepted": "accepted by the baseline",
    }
    return [
        (key.replace("_", "-"), counts[key], name) for key, name in names.items() if counts[key]
    ]


def _row(entry: Entry, anchor: str) -> _Row:
    result = entry.result
    path, kind = path_text(result), _kind(entry)
    if not isinstance(result, Scored):
        reason = result.error if isinstance(result, Failed) else result.reason
        return _Row(path=path, kind=kind, verdict=kind, reason=printable(reason))
    return _Row(
        path=path,
        kind=kind,
        verdict=verdict_text(entry),
        anchor=anchor,
        p_value=f"{result.p_value:.4f}",
        q_value=f"{entry.q_value:.4f}",
        score=f"{result.score:+.2f}",
        detector=printable(result.detector),
    )


def _details(
    entry: Entry,
    anchor: str,
    pictures: Mapping[str, str],
    context: ScanContext,
    *,
    several: bool,
) -> _Details:
    result = entry.result
    assert isinstance(result, Scored)
    detector = context.candidates.detectors[result.detector]
    return _Details(
        anchor=anchor,
        path=path_text(result),
        name=printable(result.path.name),
        kind=_kind(entry),
        verdict=verdict_text(entry),
        reasons=[printable(why) for why in result.out_of_scope],
        sentence=_typeset(p_sentence(result, context)),
        numbers={
            "p-value": f"{result.p_value:.4f}",
            **({"q-value": f"{entry.q_value:.4f}"} if several else {}),
            "score": f"{result.score:+.2f}",
            "probability of a backdoor, at even odds": probability_text(result),
        },
        plot=histogram(result, context.calibration(result), context.fpr),
        answers=answers(result, detector),
        pictures=pictures[result.detector],
        found=found(result),
        notes=[
            printable(note)
            for note in result.notes
            if note not in result.out_of_scope and not note.startswith("found: ")
        ],
        facts={
            "SHA-256 of the model": digest_text(result),
            **{f"SHA-256 of {printable(n)}": digest for n, digest in result.external_sha256},
            "SHA-256 of the detector": result.detector_sha256,
            "format": result.format,
            "time": f"{result.seconds:.3f} s",
        },
    )


def _detector(
    name: str,
    detector: Detector,
    pictures: str,
    context: ScanContext,
    asked: Sequence[tuple[str, ...]],
) -> dict[str, Any]:
    members, first = [], 0
    for queries in detector.queries_by_member():
        members.append(range(first, first + len(queries)))
        first += len(queries)
    return {
        "name": printable(name),
        "facts": scope_facts(detector, asked) | {"SHA-256": context.candidates.sha256[name]},
        "members": members,
        "pictures": pictures,
    }


def _css(detectors: Mapping[str, Detector]) -> str:
    """The page's style: what is fixed, the palette, and each pattern's picture once."""
    fixed = (resources.files("litmus.reports.scan") / "page.css").read_text(encoding="utf-8")
    rules = [f".h{i}{{background:{colour}}}" for i, colour in enumerate(PALETTE)]
    for prefix, detector in detectors.items():
        images = [image for queries in detector.queries_by_member() for image in queries]
        rules += [
            f'.{prefix}-{i}{{background-image:url("{png_uri(image)}")}}'
            for i, image in enumerate(images)
        ]
    return fixed + "\n".join(rules) + "\n"


def _typeset(text: str) -> str:
    return text.replace("<=", "\N{LESS-THAN OR EQUAL TO}")
