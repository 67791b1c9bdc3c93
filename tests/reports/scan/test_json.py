from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from litmus.reports.scan import json_schema, scan_json
from tests.reports.scan.cases import accepting, context, hostile, of_every_kind, thorough

SCHEMA = json.loads(json_schema())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.fixture
def report() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(scan_json(of_every_kind(), context()))
    return content


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "results", [of_every_kind(), hostile(), []], ids=["every", "hostile", "no"]
)
def test_a_report_follows_the_schema(results: list[Any]) -> None:
    for known in (None, accepting(results)):
        VALIDATOR.validate(json.loads(scan_json(results, context(baseline=known))))
    VALIDATOR.validate(json.loads(scan_json(results, context(versions={}, finished=None))))


def test_a_thorough_scan_tells_what_judged_each_model() -> None:
    results, known = thorough()
    report = json.loads(scan_json(results, context(known)))
    VALIDATOR.validate(report)
    told = [(result["parts"], result["n_calibration"]) for result in report["results"]]
    two, three = (["ulp", "last_layer"], 59), (["ulp", "last_layer", "max_margin"], 39)
    assert told == [two, three, two]
    # What all parts that were permitted promise, and what these two do.
    (entry,) = report["detectors"]
    assert entry["n_calibration"] == 39
    assert report["results"][0]["p_value"] == pytest.approx(1 / 60)
    reasons = [result["out_of_scope"] for result in report["results"]]
    assert reasons[:2] == [[], []]
    assert "not for these classes" in reasons[2][0]
    assert reasons[2][0] in report["results"][2]["notes"]


def test_each_field_of_a_result_is_described(report: dict[str, Any]) -> None:
    described = {
        "scored": SCHEMA["$defs"]["scored"]["properties"],
        "skipped": SCHEMA["$defs"]["not_scored"]["properties"],
        "failed": SCHEMA["$defs"]["not_scored"]["properties"],
    }
    for result in report["results"]:
        assert set(result) - {"status"} == set(described[result["status"]])
    assert set(report) == set(SCHEMA["properties"])
    for entry in report["detectors"]:
        assert set(entry) == set(SCHEMA["$defs"]["detector"]["properties"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 2),
        (("results", 0, "verdict"), "fine"),
        (("results", 0, "p_value"), 1.5),
        (("results", 0, "model_sha256"), "abc"),
        (("results", 0, "accepted"), None),
        (("results", 4, "reason"), 3),
        (("results", 4, "status"), "lost"),
        (("summary", "failed"), -1),
        (("detectors", 0, "input_spec", "height"), 0),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    report: dict[str, Any], place: tuple[Any, ...], value: object
) -> None:
    target: Any = report
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(ValidationError):
        VALIDATOR.validate(report)


def test_numbers_are_those_of_the_scan(report: dict[str, Any]) -> None:
    by_path = {result["path"]: result for result in report["results"]}
    assert by_path["models/bad.onnx"]["p_value"] == 0.01
    # p 0.01 twice, of four that were scored: 0.01 * 4 / 2.
    assert by_path["models/bad.onnx"]["q_value"] == pytest.approx(0.02)
    assert by_path["models/odd.onnx"]["verdict"] == "inconclusive"
    assert report["summary"] == {
        "files": 6, "scored": 4, "suspicious": 1, "no_evidence_found": 2, "inconclusive": 1,
        "skipped": 1, "failed": 1, "accepted": 0,
    }  # fmt: skip
    assert report["finished"] == "2026-03-04T05:06:07+00:00"
    assert [entry["name"] for entry in report["detectors"]] == ["colour", "layer"]
