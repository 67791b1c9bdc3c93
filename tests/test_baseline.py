from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litmus.errors import UsageError
from litmus.reports.scan import scan_json
from litmus.scanning import Failed, Scored, exit_code
from litmus.scanning.baseline import Baseline
from tests.reports.scan.cases import context, of_every_kind, scored


def written(path: Path, *results: Scored) -> Baseline:
    path.write_text(scan_json(results, context()))
    return Baseline.read(path)


BAD = scored("bad.onnx", 9.0)
ODD = scored("odd.onnx", 9.0, distance=1e6)
CLEAN = scored("clean.onnx", -1.0)


def test_what_a_report_told_is_accepted_wherever_it_lies_now(tmp_path: Path) -> None:
    known = written(tmp_path / "b.json", BAD, ODD, CLEAN)
    assert known.accepts(replace(BAD, path=Path("elsewhere.onnx"), score=8.0))
    assert known.accepts(ODD)
    assert not known.accepts(CLEAN)  # it is no finding
    assert not known.accepts(Failed(path=BAD.path, error="broken"))


def test_another_file_is_not(tmp_path: Path) -> None:
    known = written(tmp_path / "b.json", BAD)
    assert not known.accepts(replace(BAD, model_sha256="0" * 64))
    elsewhere = replace(BAD, external_sha256=(("weights.bin", "1" * 64),))
    assert not known.accepts(elsewhere)
    known = written(tmp_path / "b.json", elsewhere)
    assert known.accepts(elsewhere)
    assert not known.accepts(replace(BAD, external_sha256=(("weights.bin", "2" * 64),)))
    assert not known.accepts(BAD)


def test_a_worse_verdict_is_not(tmp_path: Path) -> None:
    digest = BAD.model_sha256
    odd, fine = replace(ODD, model_sha256=digest), replace(CLEAN, model_sha256=digest)
    assert not written(tmp_path / "b.json", odd).accepts(BAD)
    assert not written(tmp_path / "b.json", fine).accepts(odd)
    assert written(tmp_path / "b.json", BAD).accepts(odd)
    # Of two verdicts the worse one was looked at, too.
    assert written(tmp_path / "b.json", BAD, fine, odd).accepts(BAD)


def test_what_is_accepted_does_not_count(tmp_path: Path) -> None:
    results = of_every_kind()[:3]
    assert all(isinstance(result, Scored) for result in results)
    known = written(tmp_path / "b.json", *(r for r in results if isinstance(r, Scored)))
    assert exit_code(results, fail_on="inconclusive") == 1
    assert exit_code(results, fail_on="inconclusive", baseline=known) == 0
    assert exit_code([*results, BAD], baseline=known) == 1
    assert exit_code([*results, Failed(path=Path("f"), error="x")], baseline=known) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no baseline"),
        ("{}", "no baseline"),
        ('{"schema_version": 2, "results": []}', "another schema_version"),
        ('{"schema_version": 1, "results": [{"status": "scored"}]}', "no baseline"),
        ('{"schema_version": 1, "results": 5}', "no baseline"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(UsageError, match=says):
        Baseline.read(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_sha256", "ABC"),
        ("model_sha256", 5),
        ("external_sha256", {"w": "x"}),
        ("external_sha256", None),
        ("verdict", "fine"),
    ],
)
def test_a_damaged_entry_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    content = json.loads(scan_json([BAD], context()))
    content["results"][0][field] = value
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="no baseline"):
        Baseline.read(tmp_path / "b.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--baseline: can't be read: No such file"):
        Baseline.read(tmp_path / "none.json")
