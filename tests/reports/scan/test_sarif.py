from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlparse

import pytest
from jsonschema import Draft4Validator

from litmus.artifacts import sha256_of
from litmus.reports.scan.sarif import scan_sarif
from litmus.scanning import Failed, ScanResult
from tests.reports.scan.cases import (
    accepting,
    context,
    evidence,
    half_confined,
    hostile,
    of_every_kind,
    scored,
    with_evidence,
)

FILE = Path(__file__).parent / "sarif-schema-2.1.0.json"
# OASIS's own, with its notice beside it, that permits copies and no change.
SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
SCHEMA = json.loads(FILE.read_text("utf-8"))
VALIDATOR = Draft4Validator(SCHEMA, format_checker=Draft4Validator.FORMAT_CHECKER)


def run(results: list[ScanResult], **options: Any) -> dict[str, Any]:
    log = json.loads(scan_sarif(results, context(**options)))
    VALIDATOR.validate(log)
    (only,) = log["runs"]
    return dict(only)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "results", [of_every_kind(), hostile(), []], ids=["every", "hostile", "no"]
)
def test_a_log_follows_the_standard(results: list[ScanResult], strict: bool) -> None:
    for known in (None, accepting(results)):
        run(results, strict=strict, baseline=known)
    run(results, versions={}, finished=None, root=None)


def test_the_schema_is_as_it_was_published() -> None:
    assert sha256_of(FILE) == SHA256


def test_the_schema_would_find_a_mistake() -> None:
    log = json.loads(scan_sarif(of_every_kind(), context()))
    log["runs"][0]["results"][0]["level"] = "severe"
    assert not VALIDATOR.is_valid(log)


def test_levels_and_rules() -> None:
    found = run(of_every_kind())
    told = [(r["ruleId"], r["level"], _path(r)) for r in found["results"]]
    assert told == [
        ("LITMUS001", "error", "models/bad.onnx"),
        ("LITMUS002", "warning", "models/odd.onnx"),
        ("LITMUS003", "note", "models/broken.onnx"),
    ]
    rules = found["tool"]["driver"]["rules"]
    for result in found["results"]:
        rule = rules[result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["defaultConfiguration"]["level"] == result["level"]
        assert all(rule[name]["text"] for name in ("shortDescription", "fullDescription", "help"))


def _path(result: dict[str, Any]) -> str:
    return str(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])


def test_what_was_found_is_told_without_its_pictures() -> None:
    result = with_evidence(scored("m.onnx", 9.0), evidence())
    (told,) = run([result])["results"]
    assert f"Found: {evidence().words()}." in told["message"]["text"]
    known = told["properties"]["evidence"]
    assert (known["source_class"], known["target_class"], known["turned"]) == (1, 2, 39)
    assert not {"mask", "before"} & set(known)


def test_what_was_not_scored_is_a_notification() -> None:
    invocation = run(of_every_kind())["invocations"][0]
    notes = invocation["toolExecutionNotifications"]
    assert [note["level"] for note in notes] == ["note", "error"]
    assert "not an ONNX file" in notes[1]["message"]["text"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 1)
    assert invocation["endTimeUtc"] == "2026-03-04T05:06:07Z"
    strict = run(of_every_kind(), strict=True)
    assert [_path(r) for r in strict["results"] if r["level"] == "note"] == [
        "models/old.h5",
        "models/broken.onnx",
    ]


def test_all_files_are_artifacts_with_their_digest() -> None:
    results = of_every_kind()
    artifacts = run(results)["artifacts"]
    assert [artifact["location"]["uri"] for artifact in artifacts] == [str(r.path) for r in results]
    bad = scored("models/bad.onnx", 9.0)
    assert artifacts[1]["hashes"] == {"sha-256": bad.model_sha256}
    (first, *_) = run(results)["results"]
    assert first["partialFingerprints"]["modelSha256/v1"] == bad.model_sha256


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("models/m.onnx", "models/m.onnx"),
        ("./a/../m.onnx", "m.onnx"),
        ("/srv/deep/m.onnx", "deep/m.onnx"),
        ("/elsewhere/m.onnx", "file:///elsewhere/m.onnx"),
        ("../m.onnx", "file:///m.onnx"),
        ("a b#c?d%.onnx", "a%20b%23c%3Fd%25.onnx"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
    ],
)
def test_paths_are_relative_to_where_the_scan_started(path: str, uri: str) -> None:
    found = run([Failed(path=Path(path), error="broken")])
    location = found["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location["uri"] == uri
    assert ("uriBaseId" in location) == (not urlparse(uri).scheme)


def test_hostile_names_come_back_from_their_uri_byte_by_byte() -> None:
    results = hostile()
    uris = [artifact["location"]["uri"] for artifact in run(results)["artifacts"]]
    assert [unquote_to_bytes(uri) for uri in uris] == [os.fsencode(str(r.path)) for r in results]


def test_a_message_holds_no_link_and_no_placeholder() -> None:
    for result in run(hostile())["results"]:
        text = result["message"]["text"]
        assert "](" not in text
        assert "{0}" not in text.replace("{{0}}", "")


def test_an_inconclusive_result_says_why() -> None:
    odd = scored("odd.onnx", 9.0, out_of_scope="not for these classes")
    (result,) = run([odd])["results"]
    assert result["message"]["text"].startswith(
        "Inconclusive: odd.onnx. Not for these classes. No verdict: p means little for a model"
    )


def test_accepted_findings_are_suppressed() -> None:
    results = of_every_kind()
    assert all("suppressions" not in result for result in run(results)["results"])
    found = run(results, baseline=accepting(results[:2]))
    states = [[s["status"] for s in result["suppressions"]] for result in found["results"]]
    assert states == [["accepted"], [], []]


def test_the_sandbox_is_named_and_what_it_lacks_is_a_warning() -> None:
    whole = run(of_every_kind())
    assert whole["properties"]["sandbox"] == "landlock 7, seccomp"
    assert "toolConfigurationNotifications" not in whole["invocations"][0]
    lacking = run(half_confined())
    assert lacking["properties"]["sandbox"] == "seccomp"
    (warning,) = lacking["invocations"][0]["toolConfigurationNotifications"]
    assert warning["level"] == "warning"
    assert "landlock: not compiled in" in warning["message"]["text"]
