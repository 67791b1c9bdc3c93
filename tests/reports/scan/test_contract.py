"""What every report promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from litmus.reports.scan import SCAN_REPORTS, ScanContext
from litmus.scanning import ScanResult, Scored
from tests.reports.scan.cases import (
    accepting,
    context,
    evidence,
    hostile,
    of_every_kind,
    scored,
    thorough,
    with_evidence,
)

Report = Callable[[Sequence[ScanResult], ScanContext], str]
every_report = pytest.mark.parametrize("report", SCAN_REPORTS.values(), ids=SCAN_REPORTS)


def mentions(text: str, name: str) -> bool:
    """Whether a file is named, by its path or, in a URI, by what is left of it."""
    return name in text or Path(name).name in text


@every_report
def test_every_finding_and_failure_is_told(report: Report) -> None:
    results = of_every_kind()
    text = report(results, context(show_skipped=True))
    for result in results:
        assert mentions(text, str(result.path))
    for said in ("uspicious", "nconclusive", "not an ONNX file", "export it to ONNX"):
        assert said in text
    assert text.endswith("\n")


@every_report
def test_the_same_results_give_the_same_text(report: Report) -> None:
    assert report(of_every_kind(), context()) == report(of_every_kind(), context())


@every_report
def test_no_report_calls_a_model_safe(report: Report) -> None:
    text = report(of_every_kind(), context(show_skipped=True))
    assert not re.search(r"\bsafe\b", text, re.IGNORECASE)


@every_report
@pytest.mark.parametrize("kind", [Scored, type(None)])
def test_one_result_or_none_is_a_report_too(report: Report, kind: type) -> None:
    results: list[ScanResult] = [scored("m.onnx", 9.0)] if kind is Scored else []
    assert report(results, context()).endswith("\n")


@every_report
def test_what_the_baseline_accepts_is_said_to_be_accepted(report: Report) -> None:
    results = of_every_kind()
    known = accepting([r for r in results if isinstance(r, Scored) and r.verdict == "suspicious"])
    plain, told = (report(results, context(baseline=each)) for each in (None, known))
    said = re.compile(r'accepted(?!": (false|0))')
    assert len(said.findall(told)) > len(said.findall(plain))


@every_report
def test_hostile_names_are_inert_and_can_be_written(report: Report) -> None:
    text = report(hostile(), context(show_skipped=True))
    text.encode("utf-8")
    # Nothing but lines; a terminal or an editor obeys none of the others.
    assert all(c.isprintable() or c == "\n" for c in text)
    if report in (SCAN_REPORTS["html"], SCAN_REPORTS["junit"]):
        assert "<script" not in text
        assert not re.search(r"<img (?!src=\"data:image/png;base64,)", text)
        assert "<!--" not in text


@every_report
def test_the_trigger_that_was_found_is_told_and_what_clean_models_do(report: Report) -> None:
    result = scored("m.onnx", 9.0, classes=("cat", "dog", "1st", "3"))
    text = report([with_evidence(result, evidence())], context(width=200))
    assert (
        "2x2 patch at the bottom right turns 98% of the images of class 1 (dog) to class 2 (1st); "
        "of clean models, 95% reach no more than 31% with this form"
    ) in " ".join(text.split())
    # By itself it is no verdict.
    clean = with_evidence(scored("m.onnx", -9.0), evidence())
    assert "uspicious: " not in report([clean], context())


@every_report
def test_how_a_model_was_read_is_told(report: Report) -> None:
    results, known = thorough()
    text = report(results, context(known))
    for said in (
        "9 of 10 reference images are on their class; the model wants its input 0 to 255",
        "fused from ulp, last_layer: held-out AUC 0.90 (0.80 to 1.00) on 9 clean + 8 backdoored",
        "without max_margin: it takes longer than 900 seconds",
        "without neural_cleanse: it needs images",
        "he model is not for these classes (dog, cat, ...), or fed otherwise",
    ):
        assert said in text


@every_report
def test_a_clean_model_that_was_read_otherwise_has_its_notes(report: Report) -> None:
    results, known = thorough()
    text = report(results[1:2], context(known))
    # SARIF lists files without a finding as artifacts alone.
    assert ("without neural_cleanse: why" in text) == (report is not SCAN_REPORTS["sarif"])


@every_report
def test_several_files_have_q_values(report: Report) -> None:
    results = of_every_kind()
    text = report(results, context())
    # Four were scored, and the least p is 1/100 in two of them.
    assert "0.02" in text
