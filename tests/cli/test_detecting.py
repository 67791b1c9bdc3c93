"""Detectors from the command line: picked, listed, described, fitted with a learning curve."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litmus.artifacts import encode_tensors, parse_tensors
from litmus.detectors import DETECTORS, bundled_detectors, load_detector
from litmus.detectors.learning_curve import LearningCurve
from litmus.errors import ZooError
from litmus.models import InputSpec
from litmus.zoo import Zoo
from tests.cli.conftest import Run
from tests.formats.onnx_models import classifier, save


def test_a_scan_needs_no_detector(run: Run, tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "m.onnx")
    outcome = run("scan", path)
    assert outcome.code == 3  # nothing that is bundled is for 3x6x5
    assert "no bundled detector is picked for 3x6x5 -> 4 classes: there are" in outcome.out
    for name in bundled_detectors():
        assert f"{name} (" in outcome.out
    report = json.loads(run("scan", path, "-f", "json").out)
    assert report["detectors"] == []
    assert report["results"][0]["status"] == "skipped"


def test_a_report_has_the_detector_of_each_result(run: Run, tmp_path: Path) -> None:
    spec = InputSpec(channels=1, height=28, width=28, num_classes=10)
    path = save(classifier(spec=spec, gain=0.01), tmp_path / "m.onnx")
    options = ("scan", path, "--detector", "digits", "--fail-on", "never")
    report = json.loads(run(*options, "-f", "json").out)
    (used,) = report["detectors"]
    assert (used["name"], used["picked_by"]) == ("digits", "name")
    assert report["results"][0]["detector"] == "digits"
    assert report["results"][0]["detector_sha256"] == used["sha256"]
    text = run(*options).out
    assert re.search(r"probability\s+detector", text)
    assert "Detector digits (digits, 1x28x28 -> 10 classes): calibrated on n = 144" in text


def test_bundled_detectors_are_listed(run: Run) -> None:
    outcome = run("detectors")
    assert outcome.code == 0
    for name in bundled_detectors():
        assert re.search(rf"^{name}\s+\w+, ", outcome.out, re.MULTILINE)
    content = json.loads(run("detectors", "-f", "json").out)
    listed = {each["name"]: each for each in content["detectors"]}
    assert list(listed) == list(bundled_detectors())
    assert listed["digits"]["picked"] is False
    assert listed["digits"]["bytes"] == bundled_detectors()["digits"].stat().st_size


def test_a_file_and_a_name_are_described_in_full(
    run: Run, small_detector_file: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.txt"
    outcome = run("detectors", small_detector_file, "digits", "-o", report)
    assert (outcome.code, outcome.out) == (0, "")
    text = report.read_text()
    assert text.startswith("small.litmus  ulp, used by --detector small.litmus only")
    assert "\ndigits  ulp" in text
    assert text.count("SHA-256") == 2
    assert "make bundle NAME=digits" in text
    assert "learning curve:" in text


def test_kinds_are_listed(run: Run) -> None:
    out = run("detectors", "--kinds").out
    assert all(re.search(rf"^{kind}  ", out, re.MULTILINE) for kind in DETECTORS)
    kinds = json.loads(run("detectors", "--kinds", "-f", "json").out)["kinds"]
    assert [kind["name"] for kind in kinds] == list(DETECTORS)


def test_mistakes_about_detectors(run: Run, small_detector_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.litmus"
    damaged.write_bytes(small_detector_file.read_bytes()[:-9])
    for arguments, code, message in (
        (("nowhere",), 2, "no such detector (expected a .litmus file or one of"),
        ((damaged,), 2, "damaged.litmus: damaged"),
        (("-f", "yaml"), 4, "text or json"),
        (("--kinds", "digits"), 4, "--kinds takes no names"),
    ):
        outcome = run("detectors", *arguments)
        assert outcome.code == code
        assert message in outcome.err
        assert "Traceback" not in outcome.err


def test_listing_detectors_needs_no_pytorch() -> None:
    forbid = "import sys; sys.modules['torch'] = None; from litmus.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", forbid, "detectors", "digits"],
        env=os.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "held-out AUC" in done.stdout


@pytest.fixture
def twice(small_zoo: Zoo, tmp_path: Path) -> Path:
    """The small zoo with its training models twice, which makes 48 of them."""
    folder = tmp_path / "twice"
    folder.mkdir()
    (folder / "zoo.json").write_bytes((small_zoo.path / "zoo.json").read_bytes())
    for entry in small_zoo.split("train"):
        content = entry.path.read_bytes()
        (folder / entry.path.name).write_bytes(content)
        arrays, header = parse_tensors(content, entry.path, ZooError)
        header["spec"]["twin"] += 100
        header["id"] = f"again-{entry.id}"
        path = folder / f"{header['id']}.safetensors"
        path.write_bytes(encode_tensors(arrays, header))
    return folder


def test_a_fit_prints_a_learning_curve(run: Run, twice: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.litmus"
    quick = ("--detector", "last_layer", "-o", file)
    outcome = run("fit", twice, *quick)
    assert outcome.code == 0, outcome.err
    assert re.search(
        r"fits again on 24 of 48 models, .* the fit, \d+ s \(--no-learning", outcome.err
    )
    assert re.search(r"learning curve:\n models in the zoo +held-out AUC", outcome.out)
    curve = LearningCurve.of(load_detector(file).held_out)
    assert curve is not None
    assert [point.num_models for point in curve.points] == [24, 48]
    assert (
        outcome.out.split("learning curve:")[1].splitlines()[1:5]
        == (run("detectors", file).out.split("learning curve:")[1].splitlines()[1:5])
    )

    without = run("fit", twice, *quick, "--no-learning-curve")
    assert "learning curve" not in without.out + without.err
    assert LearningCurve.of(load_detector(file).held_out) is None


def test_where_a_learning_curve_can_not_be_had(run: Run, small_zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "mine.litmus"
    for detector, curve in (("last_layer", "last_layer, 24 models"), ("attack_based", "attack_")):
        refused = run("fit", small_zoo.path, "-o", file, "--detector", detector, "--learning-curve")
        assert refused.code == 4
        assert "no --learning-curve" in refused.err
        assert curve in refused.err
    assert not file.exists()


def test_a_fit_takes_parts_from_another(run: Run, small_zoo: Zoo, tmp_path: Path) -> None:
    first, second, other = tmp_path / "first.litmus", tmp_path / "second.litmus", tmp_path / "other"
    fused = ("--detector", "fused", "--set", "parts=last_layer+stamps", "--no-learning-curve")
    made = run("fit", small_zoo.path, "-o", first, *fused, "--no-references")
    assert made.code == 0, made.err
    known = run("fit", small_zoo.path, "-o", second, *fused, "--parts-from", first)
    assert known.code == 4
    assert "fitted on this zoo" in known.err
    assert not second.exists()

    other.mkdir()
    for file in filter(Path.is_file, small_zoo.path.iterdir()):
        (other / file.name).symlink_to(file)
    index = json.loads((small_zoo.path / "zoo.json").read_text())
    index["recipe"]["name"] = "other"
    (other / "zoo.json").unlink()
    (other / "zoo.json").write_text(json.dumps(index))
    made = run("fit", other, "-o", second, *fused, "--parts-from", first)
    assert made.code == 0, made.err
    told = run("detectors", second).out
    assert "24 other models, zoo other" in told
    assert "--parts-from first.litmus" in told
    refused = run(
        "fit", other, "-o", second, *fused[:-1], "--learning-curve", "--parts-from", first
    )
    assert refused.code == 4
    assert "no --learning-curve" in refused.err


GROWN = """\
name = "grown"
seed = 5
twins = 2
test_share = 0.0
start_from = "nowhere"
[dataset]
name = "digits"
[training]
batch_size = 64
[attack]
name = "patch"
label_map = "all_to_one"
[gates]
attack_success = 0.0
"""


def test_a_grown_zoo_extends_a_promise_and_is_left_out(
    run: Run, small_zoo: Zoo, tmp_path: Path
) -> None:
    recipe, grown, file = tmp_path / "grown.toml", tmp_path / "grown", tmp_path / "mine.litmus"
    recipe.write_text(GROWN)
    lost = run("zoo", "build", recipe, "-o", grown)
    assert lost.code == 2
    assert "nowhere: not a model zoo" in lost.err
    built = run("zoo", "build", recipe, "-o", grown, "--start-from", small_zoo.path)
    assert built.code == 0, built.err
    assert "4 models asked for" in built.out

    fitted = run("fit", small_zoo.path, "-o", file, "--detector", "last_layer", "--no-references")
    assert fitted.code == 0, fitted.err
    known = run("calibrate", file, small_zoo.path, "-o", file)
    assert known.code == 4
    assert "knows its models" in known.err
    wider = run("calibrate", file, grown, "-o", file)
    assert wider.code == 0, wider.err
    assert "n = 14 clean models (12 + 2, each by itself): the smallest p-value is 0.3333" in (
        wider.out
    )
    assert "2 other models, zoo grown" in run("detectors", file).out

    both = (small_zoo.path, grown, "--detector", "last_layer", "--leave-out", "zoo", "--fpr", 0.2)
    left = run("evaluate", *both, "--only", "grown", "-f", "json")
    assert left.code == 0, left.err
    (row,) = json.loads(left.out)["rows"]
    assert (row["leave_out"], row["group"]) == ("zoo", "grown")
    assert (row["n_clean"], row["n_backdoored"]) == (2, 2)
    alone = run("evaluate", *both[:1], *both[2:])
    assert alone.code == 2
    assert "nothing to leave out: all models have the same zoo" in alone.err
