"""A scan's results as JUnit XML, which continuous-integration servers read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from litmus.reports.scan.content import (
    CAVEAT,
    Entry,
    ScanContext,
    annotate,
    digest_text,
    p_sentence,
    path_text,
    probability_text,
    sandbox_held,
    sandbox_sentence,
    verdict_text,
)
from litmus.scanning import Failed, ScanResult, Scored
from litmus.scanning.results import printable

__all__ = ["scan_junit"]


def scan_junit(results: Sequence[ScanResult], context: ScanContext) -> str:
    """Return one test case for each file, red where the scan's exit code is.

    What counts under `fail_on` is a failure, what failed an error, and so is what was skipped
    where that is an error. What is suspicious or inconclusive and does not count is skipped:
    it has not passed.
    """
    entries = annotate(results, context)
    suite = Element("testsuite", name="litmus scan")
    properties = SubElement(suite, "properties")
    facts = {"fpr": f"{context.fpr:g}"}
    facts |= {f"version of {name}": version for name, version in context.versions.items()}
    facts |= {
        f"SHA-256 of detector {name}": context.candidates.sha256[name]
        for name in context.used(results)
    }
    facts |= {
        "sandbox": sandbox_held(r.sandbox for r in results),
        "missing sandbox": sandbox_sentence(r.sandbox for r in results),
    }
    for name, value in facts.items():
        if not value:
            continue
        SubElement(properties, "property", name=printable(name), value=printable(value))
    for entry in entries:
        _add_case(suite, entry, context)
    counts = {
        "tests": len(entries),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    seconds = sum(r.seconds for r in results if isinstance(r, Scored))
    attributes = {name: str(count) for name, count in counts.items()} | {"time": f"{seconds:.3f}"}
    suite.attrib |= attributes
    if context.finished:
        suite.set("timestamp", context.finished.strftime("%Y-%m-%dT%H:%M:%S"))
    root = Element("testsuites", name="litmus", attrib=attributes)
    root.append(suite)
    indent(root, " ")
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add_case(suite: Element, entry: Entry, context: ScanContext) -> None:
    result = entry.result
    name = path_text(result)
    seconds = result.seconds if isinstance(result, Scored) else 0.0
    case = SubElement(
        suite, "testcase", name=name, classname="litmus.scan", file=name, time=f"{seconds:.3f}"
    )
    if isinstance(result, Scored):
        kind, message, details = _scored(entry, result, context)
    elif isinstance(result, Failed):
        kind, message, details = "error", result.error, ""
    else:
        kind, message, details = "error" if context.strict else "skipped", result.reason, ""
    if kind:
        verdict = result.verdict if isinstance(result, Scored) else type(result).__name__.lower()
        told = SubElement(case, kind, message=printable(message), type=verdict)
        told.text = _clean(details) or None
    else:
        SubElement(case, "system-out").text = _clean(details)


def _scored(entry: Entry, result: Scored, context: ScanContext) -> tuple[str, str, str]:
    """The element of a case that says what was found ("" where it passed), message and text."""
    q_value = f"q = {entry.q_value:.4f}"
    numbers = f"p = {result.p_value:.4f}, {q_value}, score {result.score:+.2f}"
    details = [
        p_sentence(result, context),
        *result.notes,
        f"{numbers}, probability {probability_text(result)}, detector {result.detector}",
        f"SHA-256 {digest_text(result)}",
        CAVEAT,
    ]
    passed = result.verdict == "no evidence found"
    kind = "failure" if entry.counts else "" if passed else "skipped"
    return kind, f"{verdict_text(entry)}: {numbers}", "\n".join(details)


def _clean(text: str) -> str:
    """Lines without the characters that XML 1.0 has no way to write."""
    return "\n".join(printable(line) for line in text.split("\n"))
