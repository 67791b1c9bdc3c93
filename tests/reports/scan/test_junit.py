from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from litmus.reports.scan.junit import scan_junit
from litmus.scanning import ScanResult, exit_code
from tests.reports.scan.cases import accepting, context, half_confined, hostile, of_every_kind


def outcomes(results: list[ScanResult], **options: Any) -> dict[str, str]:
    """The element of each case that is not properties; "passed" for what a server shows green."""
    root = fromstring(scan_junit(results, context(**options)).encode())
    suites = root.findall("testsuite")
    found = {}
    for case in root.iter("testcase"):
        kinds = [child.tag for child in case if child.tag != "system-out"]
        found[case.attrib["name"]] = kinds[0] if kinds else "passed"
    for element in (root, *suites):
        counted = [int(element.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
        values = list(found.values())
        told = [values.count(kind) for kind in ("failure", "error", "skipped")]
        assert counted == [len(root.findall("testsuite/testcase")), *told]
    return found


def test_red_where_the_exit_code_is() -> None:
    results = of_every_kind()
    assert list(outcomes(results).values()) == [
        "passed", "failure", "skipped", "passed", "skipped", "error",
    ]  # fmt: skip
    assert list(outcomes(results, fail_on="inconclusive", strict=True).values()) == [
        "passed", "failure", "failure", "passed", "error", "error",
    ]  # fmt: skip
    assert "failure" not in outcomes(results, fail_on="never").values()
    assert "failure" not in outcomes(results, baseline=accepting(results)).values()


@pytest.mark.parametrize("fail_on", ["suspicious", "inconclusive", "never"])
def test_a_failure_is_what_makes_the_exit_code_1(fail_on: str) -> None:
    for results in (of_every_kind(), of_every_kind()[:1], of_every_kind()[2:3]):
        failures = "failure" in outcomes(results, fail_on=fail_on).values()
        assert failures == (exit_code(results, fail_on=fail_on) == 1)


def test_a_case_tells_p_and_what_it_means() -> None:
    root = fromstring(scan_junit(of_every_kind(), context()).encode())
    (failure,) = root.iter("failure")
    assert failure.attrib["message"] == "suspicious: p = 0.0100, q = 0.0200, score +9.10"
    assert "None of the 99 clean models" in (failure.text or "")
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.attrib["timestamp"] == "2026-03-04T05:06:07"


def test_hostile_names_leave_the_document_whole() -> None:
    results = hostile()
    assert len(outcomes(results)) > 0
    root = fromstring(scan_junit(results, context()).encode())
    tags = {element.tag for element in root.iter()}
    assert tags <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error",
        "skipped", "system-out",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("results", "held", "missing"),
    [
        (of_every_kind(), "landlock 7, seccomp", ""),
        (half_confined(), "seccomp", "landlock: not compiled in"),
        ([], None, ""),
    ],
)
def test_the_sandbox_is_a_property(
    results: list[ScanResult], held: str | None, missing: str
) -> None:
    root = fromstring(scan_junit(results, context()).encode())
    properties = {p.attrib["name"]: p.attrib["value"] for p in root.iter("property")}
    assert properties.get("sandbox") == held
    assert ("missing sandbox" in properties) == bool(missing)
    assert missing in properties.get("missing sandbox", "")
