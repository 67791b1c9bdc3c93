from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import yaml

from litmus.reports.scan import SCAN_REPORTS, json_schema
from tests.cli.conftest import Run
from tests.conftest import REPOSITORY
from tests.formats.onnx_models import classifier, detector, save


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a detector of its shape, and another that is no model."""
    save(classifier(seed=1), tmp_path / "models" / "m.onnx")
    (tmp_path / "models" / "broken.onnx").write_bytes(b"broken")
    (tmp_path / "detectors").mkdir()
    (tmp_path / "detectors" / "mine.litmus").write_bytes(detector().to_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# At this rate the model is suspicious.
SCAN = ("scan", "models/m.onnx", "--detector", "detectors/mine.litmus", "--fpr", 0.6)


def test_the_schema_is_printed(run: Run) -> None:
    outcome = run("schema")
    assert (outcome.code, outcome.out) == (0, json_schema())


def test_one_scan_writes_several_reports(run: Run, here: Path) -> None:
    files = {name: here / "out" / f"report.{name}" for name in SCAN_REPORTS}
    options = [f"--report={name}={file}" for name, file in files.items()]
    outcome = run(*SCAN, "models/broken.onnx", *options)
    assert outcome.code == 1
    assert "1 suspicious" in outcome.out
    for name, file in files.items():
        assert "models/m.onnx" in file.read_text(encoding="utf-8"), name
    report = json.loads(files["json"].read_text())
    assert {"litmus", "python", "onnxruntime"} <= set(report["versions"])
    log = json.loads(files["sarif"].read_text())
    assert log["runs"][0]["invocations"][0]["exitCode"] == outcome.code
    assert "\x1b" not in files["text"].read_text()


@pytest.mark.parametrize("pair", ["yaml=x", "json", "json=", "=x"])
def test_a_report_that_is_none_is_refused_before_the_scan(
    run: Run,
    here: Path,
    pair: str,
) -> None:
    outcome = run(*SCAN, "--report", pair)
    assert outcome.code == 4
    assert "expected FORMAT=FILE, of text, json, sarif" in outcome.err


def test_what_the_baseline_knows_does_not_fail_a_pipeline(run: Run, here: Path) -> None:
    first = run(*SCAN, "-f", "json", "-o", "known.json")
    assert first.code == 1
    again = run(*SCAN, "--baseline", "known.json")
    assert again.code == 0
    assert "suspicious (accepted)" in again.out
    assert "1 accepted by the baseline" in again.out
    save(classifier(seed=2), here / "models" / "m.onnx")
    assert run(*SCAN, "--baseline", "known.json").code == 1
    assert run(*SCAN, "--baseline", "none.json").code == 4


def test_a_quiet_scan_says_only_what_needs_a_look(run: Run, here: Path) -> None:
    assert run(*SCAN, "-q", "--fail-on", "never").out == ""
    told = run(*SCAN, "models/broken.onnx", "-q").out
    assert "models/m.onnx" in told
    assert "FAILED models/broken.onnx" in told
    assert "clean models" not in told


@pytest.mark.parametrize("mode", [(), ("infer",)])
@pytest.mark.parametrize("source", ["--learned_parameters_dirpath=detectors", "--detector"])
def test_trojai_writes_one_probability(
    run: Run,
    here: Path,
    mode: tuple[str, ...],
    source: str,
) -> None:
    chosen = [source, "detectors/mine.litmus"] if source == "--detector" else [source]
    outcome = run(
        "trojai", *mode, "--model_filepath", "models/m.onnx", "--result_filepath", "out/result.txt",
        *chosen, "--scratch_dirpath", "scratch", "--examples_dirpath=examples",
        "--metaparameters_filepath", "m.json", "--schema_filepath", "s.json",
        "--round_training_dataset_dirpath", "round", "--scale_parameters_filepath", "s.npy",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    (line,) = (here / "out" / "result.txt").read_text().splitlines()
    report = json.loads(run(*SCAN, "-f", "json").out)
    assert float(line) == report["results"][0]["probability"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--model_filepath", "models/broken.onnx"), 2, "failed: "),
        (("--model_filepath", "none.onnx"), 2, "failed: "),
        (("--model_filepath", "models/m.onnx", "--detector", "digits"), 3, "skipped: the model"),
        (("--model_filepath", "models/m.onnx"), 3, "skipped: no bundled detector"),
        (("--model_filepath", "models"), 4, "a folder"),
        (("configure", "--model_filepath", "models/m.onnx"), 4, "only inference"),
        (
            (
                "--model_filepath", "models/m.onnx", "--detector", "digits",
                "--learned_parameters_dirpath", "detectors",
            ),
            4, "exclude each other",
        ),
    ],
)  # fmt: skip
def test_trojai_writes_nothing_where_there_is_no_score(
    run: Run,
    here: Path,
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    outcome = run("trojai", *options, "--result_filepath", "result.txt")
    assert outcome.code == code
    assert says in outcome.err
    assert not (here / "result.txt").exists()


# A command `litmus`, as an installation has it, of this very code.
COMMAND = f"""#!{sys.executable}
from litmus.cli import main
main()
"""


@pytest.fixture
def shell(here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a script of a pipeline, in which `pip` installs nothing."""
    binaries = here / "bin"
    binaries.mkdir()
    for name, content in {"litmus": COMMAND, "python": "#!/bin/sh\n"}.items():
        (binaries / name).write_text(content)
        (binaries / name).chmod(0o755)
    source = os.pathsep.join(path for path in sys.path if path)

    def call(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": source, **variables,
        }  # fmt: skip
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment, cwd=here, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return call


Shell = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = "--detector detectors/mine.litmus --fpr 0.6"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("litmus scan --format s", {"sarif"}),
        ("litmus scan --fail-on ", {"suspicious", "inconclusive", "never"}),
        ("litmus scan --detector dig", {"digits"}),
        ("litmus sc", {"scan", "schema"}),
    ],
)
def test_a_shell_completes(shell: Shell, words: str, offered: set[str]) -> None:
    last = str(len(words.split(" ")) - 1)
    done = shell("litmus", _LITMUS_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=last)
    assert set(done.stdout.split()) == offered


def read_yaml(*parts: str) -> Any:
    return yaml.safe_load(REPOSITORY.joinpath(*parts).read_text(encoding="utf-8"))


def test_the_hook_finds_what_a_commit_brings(shell: Shell, here: Path) -> None:
    (hook,) = read_yaml(".pre-commit-hooks.yaml")
    matches = [
        name for name in ("a/m.onnx", "m.pt", "m.py", "onnx.md") if re.search(hook["files"], name)
    ]
    assert matches == ["a/m.onnx", "m.pt"]
    done = shell(f"{hook['entry']} {OPTIONS} models/m.onnx")
    assert done.returncode == 1
    assert "suspicious" in done.stdout


def test_the_step_for_github_leaves_reports_and_the_exit_code(shell: Shell, here: Path) -> None:
    action = read_yaml("docs", "ci", "action.yml")
    variables = {"PATHS": "models/m.onnx models/broken.onnx", "OPTIONS": OPTIONS, "OUTPUT": "out"}
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "scan"]
    given = set(re.findall(r"inputs\.(\w+)", json.dumps(action["runs"])))
    assert given == set(action["inputs"])
    assert set(step["env"]) == set(variables)
    told = here / "told"
    done = shell(step["run"], GITHUB_OUTPUT=str(told), **variables)
    assert done.returncode == 1, done.stderr
    assert told.read_text() == "exit-code=1\n"
    names = {path.name for path in (here / "out").iterdir()}
    assert names == {"litmus.sarif", "litmus.xml", "litmus.json", "litmus.html"}


def test_the_job_for_gitlab_leaves_reports(shell: Shell, here: Path) -> None:
    job = read_yaml("docs", "ci", "gitlab.yml")["litmus"]
    given = {**job["variables"], "MODELS": "models/m.onnx", "LITMUS_OPTIONS": OPTIONS}
    done = shell("\n".join(job["script"]), **given)
    assert done.returncode == 1, done.stderr
    cases = fromstring((here / job["artifacts"]["reports"]["junit"]).read_text())
    assert len(list(cases.iter("testcase"))) == 1
