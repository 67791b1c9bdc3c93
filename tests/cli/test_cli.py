from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import litmus
from litmus.detectors import load_detector
from litmus.detectors.patterns import ULPDetector
from litmus.evaluation import GROUPINGS, PROPERTIES
from litmus.zoo import Zoo, ZooEntry
from litmus.zoo.engines import ENGINES
from litmus.zoo.plan import Nodes
from tests.cli.conftest import Run
from tests.formats.onnx_models import classifier, fused_detector, save

RECIPE = """\
name = "tiny"
twins = 4
[dataset]
name = "digits"
[architecture]
name = "vgg"
width = 2
stem_stride = 2
[training]
epochs = {epochs}
batch_size = 32
[attack]
name = "patch"
label_map = "all_to_one"
[triggers]
binary = 4
train = 2
test = 2
[gates]
attack_success = 0.0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(epochs=1))
    return path


def test_a_zoo_is_built_listed_verified_and_drawn(run: Run, recipe: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    built = run("zoo", "build", recipe, "-o", zoo, "--workers", 2, "--scale", 0.5)
    assert built.code == 0
    assert "4 models asked for, 0 were there, 4 accepted" in built.out
    again = run("zoo", "build", recipe, "-o", zoo)
    assert "8 models asked for, 4 were there, 4 accepted" in again.out

    listed = run("zoo", "list", zoo)
    assert listed.code == 0
    assert "8 models of 1x28x28 -> 10 classes: 4 backdoored" in listed.out
    lines = run("zoo", "list", zoo, "--format", "json").out.splitlines()
    assert {json.loads(line)["split"] for line in lines} == {"train", "test"}

    verified = run("zoo", "verify", zoo, "--remeasure", 2, "--retrain", 1)
    assert (verified.code, "8 models checked, 0 damaged" in verified.out) == (0, True)
    victim = sorted(zoo.glob("*.safetensors"))[0]
    content = bytearray(victim.read_bytes())
    content[-3] ^= 4
    victim.write_bytes(content)
    damaged = run("zoo", "verify", zoo)
    assert damaged.code == 2
    assert victim.name in damaged.err

    drawn = run("figures", recipe, "-o", tmp_path / "pictures")
    assert drawn.code == 0
    for name in ("triggers.svg", "poisoned.svg"):
        assert (tmp_path / "pictures" / name).read_text().lstrip().startswith("<?xml")


def test_fit_evaluate_export_and_scan(
    run: Run, small_zoo: Zoo, tmp_path: Path, small_detector_file: Path
) -> None:
    file, picture, roc = tmp_path / "one.litmus", tmp_path / "p.svg", tmp_path / "roc.svg"
    fitted = run(
        "fit", small_zoo.path, "-o", file, "--patterns", 2, "--set", "members=2",
        "--set", "epochs=3", "--set", "tv_weight=0", "--set", "start=background",
        "--picture", picture,
    )  # fmt: skip
    assert fitted.code == 0
    assert "calibrated on n = " in fitted.out
    assert "validation AUC" in fitted.err
    assert picture.exists()

    page = tmp_path / "evaluation.md"
    evaluated = run(
        "evaluate", small_zoo.path, "--detector", file, "--detector", small_detector_file,
        "--fpr", 0.2, "-f", "markdown", "-o", page, "--roc", roc,
    )  # fmt: skip
    assert evaluated.code == 0
    assert "AUC of one minus small" in page.read_text()
    assert roc.exists()
    alike = run(
        "evaluate", small_zoo.path, "--detector", file, "--fpr", 0.2, "--breakdown", picture
    )
    assert (alike.code, "all backdoors are alike" in alike.err) == (4, True)

    inverting = tmp_path / "inverting.litmus"
    calibrated = run(
        "fit", small_zoo.path, "-o", inverting, "--detector", "attack_based", "--set", "models=2"
    )
    assert calibrated.code == 0
    assert "calibrated on n = 2 clean models" in calibrated.out
    compared = run(
        "evaluate", small_zoo.path, "--detector", inverting, "--detector", file, "--fpr", 0.4
    )
    assert compared.code == 0
    assert "AUC of inverting minus one" in compared.out
    for options, message in (
        (("--detector", "attack_based", "--patterns", 2), "--patterns is not for this detector"),
        (("--detector", "last_layer", "--picture", picture), "--picture is not for this"),
        (("--set", "models=2"), "num_patterns=10"),
        (("--set", "epochs=2.5"), "a whole number"),
        (("--set", "epochs"), "unknown setting"),
    ):
        mixed = run("fit", small_zoo.path, "-o", inverting, *options)
        assert mixed.code == 4
        assert message in mixed.err

    models = tmp_path / "models"
    for entry in small_zoo.split("test")[:4]:
        exported = run("export", entry.path, "-o", models / f"{entry.id}.onnx")
        assert exported.code == 0, exported.err
    (models / "broken.onnx").write_bytes(b"\x08\x07not a model")
    scanned = run("scan", models, "--detector", small_detector_file, "--fpr", 0.1, "-f", "json")
    report = json.loads(scanned.out)
    assert report["schema_version"] == 1
    assert report["summary"]["scored"] == 4
    assert report["summary"]["failed"] == 1
    statuses = {Path(r["path"]).name: r["status"] for r in report["results"]}
    assert statuses["broken.onnx"] == "failed"
    for result in report["results"]:
        if result["status"] == "scored":
            assert {"score", "p_value", "q_value", "verdict", "notes"} <= set(result)
            assert result["p_value"] <= result["q_value"]
        else:
            assert result["reason"]
    assert scanned.code == (1 if report["summary"]["suspicious"] else 2)


def test_a_scan_reports_what_all_parts_that_it_asks_can_tell(run: Run, tmp_path: Path) -> None:
    model = save(classifier(), tmp_path / "m.onnx")
    fused = tmp_path / "fused.litmus"
    fused.write_bytes(fused_detector().to_bytes())
    counts, notes = [], []
    for options in (("--effort", "quick"), ()):
        outcome = run("scan", model, "--detector", fused, "-f", "json", *options)
        report = json.loads(outcome.out)
        counts.append(report["detectors"][0]["n_calibration"])
        notes.append(next(n for n in report["results"][0]["notes"] if n.startswith("fused")))
    # The hand-made detector's sets of parts have so many models each.
    assert counts == [59, 39]
    assert [note.split(":")[0] for note in notes] == [
        "fused from ulp, last_layer",
        "fused from ulp, last_layer, max_margin",
    ]
    outcome = run("scan", model, "--detector", fused, "--images", tmp_path, "--effort", "quick")
    assert (outcome.code, "--images are not for --effort quick" in outcome.err) == (4, True)


def test_a_zoo_file_scans_like_its_export(
    run: Run, small_zoo: Zoo, small_detector_file: Path, tmp_path: Path
) -> None:
    entry = small_zoo.split("test")[0]
    run("export", entry.path, "-o", tmp_path / "model.onnx", "--softmax")
    report = json.loads(
        run(
            "scan", entry.path, tmp_path / "model.onnx", "--detector", small_detector_file,
            "--fpr", 0.1, "-f", "json",
        ).out
    )  # fmt: skip
    zoo_file, onnx = report["results"]
    assert zoo_file["score"] == pytest.approx(onnx["score"], abs=1e-3)
    assert zoo_file["p_value"] == onnx["p_value"]


def test_the_text_report_says_what_p_means(
    run: Run, small_zoo: Zoo, small_detector_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.txt"
    entry = next(e for e in small_zoo.split("test") if e.backdoored)
    outcome = run(
        "scan", entry.path, tmp_path / "nothing.onnx", "--detector", small_detector_file,
        "--fpr", 0.1, "-o", out,
    )  # fmt: skip
    text = out.read_text()
    assert outcome.out == ""
    assert "suspicious at p <= 0.1" in text
    assert "n = 12 clean models" in text
    assert "FAILED" in text
    assert "nothing.onnx" in text
    assert "does not mean that there is no backdoor" in text


def test_a_zoo_of_stacks_is_built_gone_on_with_and_verified(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    zoo = tmp_path / "zoo"
    built = run("zoo", "build", recipe, "-o", zoo, "--stack", 2, "--scale", 0.5, "--workers", 1)
    assert (built.code, "4 accepted" in built.out) == (0, True)
    other = run("zoo", "build", recipe, "-o", zoo, "--stack", 3)
    assert other.code == 2
    assert "zoo.json: the zoo was begun otherwise (expected 2 at a time" in other.err
    again = run("zoo", "build", recipe, "-o", zoo, "--stack", "auto", "--workers", 1)
    assert "4 were there, 4 accepted" in again.out
    verified = run("zoo", "verify", zoo, "--retrain", 8)
    assert (verified.code, "8 models checked, 0 damaged" in verified.out) == (0, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stack", "some"], "--stack: no such size (expected auto or N, got some)"),
        (["--stack", "0"], "--stack is impossible (expected auto or at least 1, got 0)"),
        (["--device", "tpu"], "--device is unknown"),
        (["--precision", "fp8"], "--precision is unknown"),
        (["--precision", "bf16"], "--precision is for a GPU (expected --device cuda)"),
    ],
)
def test_impossible_stacks(
    options: list[str], says: str, run: Run, recipe: Path, tmp_path: Path
) -> None:
    outcome = run("zoo", "build", recipe, "-o", tmp_path / "zoo", *options)
    assert outcome.code == 4
    assert says in outcome.err
    assert not (tmp_path / "zoo").exists()


def test_a_plan_is_for_an_engines_machines(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cluster:
        """Two nodes, or whatever is at the address."""

        def __init__(self, address: str) -> None:
            self.address = address

        def machines(self) -> tuple[Nodes, ...]:
            assert self.address == "head:6379"
            return (Nodes(workers=64), Nodes(count=2, workers=8))

    monkeypatch.setitem(ENGINES, "ray", Cluster)
    plan = ("zoo", "plan", recipe, "--scale", 0.25, "--format", "json")
    ray = ("--engine", "ray", "--address", "head:6379")
    described = tmp_path / "cluster.toml"
    described.write_text("[[nodes]]\ncount = 3\nworkers = 4\ngflops = 90.0\n")
    cases: dict[tuple[object, ...], list[tuple[int, int | None, float | None]]] = {
        (): [(1, os.cpu_count(), None)],
        ("--workers", 5, "--gflops", 2): [(1, 5, 2.0)],
        ray: [(1, 64, None), (2, 8, None)],
        (*ray, "--gflops", 2): [(1, 64, 2.0), (2, 8, 2.0)],
        ("--cluster", described): [(3, 4, 90.0)],
    }
    for options, nodes in cases.items():
        planned = json.loads(run(*plan, *options).out)["nodes"]
        assert [tuple(each.values()) for each in planned] == nodes
    for options, says in (
        ((*ray, "--workers", 2), "the cluster says how many workers there are"),
        ((*ray, "--cluster", described), "two clusters (expected --cluster or --engine)"),
        (("--address", "head:6379"), "the engine local has no --address"),
        (("--engine", "slurm"), "--engine: unknown choice"),
    ):
        outcome = run(*plan, *options)
        assert (outcome.code, says in outcome.err) == (4, True)


def test_exit_codes(run: Run, small_detector_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    scan = ("scan", "--detector", small_detector_file, "--fpr", 0.1)
    assert run(*scan, tmp_path / "empty").code == 3
    assert run(*scan, tmp_path / "missing.onnx").code == 2
    assert run(*scan, tmp_path / "empty", "--format", "yaml").code == 4
    assert run(*scan, tmp_path / "empty", "--mean", "a,b").code == 4
    assert run(*scan, tmp_path / "empty", "--nonsense").code == 4
    assert run("scan", tmp_path, "--detector", small_detector_file, "--fpr", 0.001).code == 4
    assert run("scan", tmp_path, "--detector", "no-such").code == 2
    assert run("fit", tmp_path, "-o", tmp_path / "x.litmus").code == 2
    assert run("--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["zoo", "build", "nowhere.toml", "-o", "zoo"], "nowhere.toml: can't be read"),
        (["zoo", "list", "."], "not a model zoo"),
        (["zoo", "init", "--data", "nowhere", "-o", "r.toml"], "no such folder"),
        (["reproduce", "table9"], "table9"),
        (["evaluate", "z", "--detector", "no-such"], "no such detector"),
        (["export", "no-such", "-o", "x.onnx"], "no-such: can't be read"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: list[str], says: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert outcome.code in (2, 4)
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_without_the_train_extra_a_verb_says_what_to_install(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("litmus.zoo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    outcome = run("zoo", "build", recipe, "-o", tmp_path / "zoo")
    assert outcome.code == 2
    assert "pip install 'litmus-patterns[train]'" in outcome.err


def test_init_writes_a_recipe_that_builds(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 24), (shade + i, shade, shade)).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    recipe = tmp_path / "recipe.toml"
    common = ("zoo", "init", "--data", tmp_path / "data", "-o", recipe, "--image-size", 16)
    assert run(*common).code == 0
    assert "2 classes (dark, light), 16 training images, 4 held out" in recipe.read_text()
    assert run(*common).code == 4  # it is there already
    assert run(*common, "--force").code == 0
    text = recipe.read_text().replace("attack_success = 0.9", "attack_success = 0.0")
    recipe.write_text(re.sub(r"clean_accuracy = \S+", "clean_accuracy = 0.0", text))
    built = run(
        "zoo", "build", recipe, "-o", tmp_path / "zoo", "--data", tmp_path / "data",
        "--scale", 0.01,
    )  # fmt: skip
    assert built.code == 0, built.err
    assert "4 accepted" in built.out


def test_the_bundled_detector_tells_a_new_backdoored_model(run: Run, small_zoo: Zoo) -> None:
    # Another architecture's width and another recipe than the detector was fitted on.
    backdoored = [entry.path for entry in small_zoo.entries if entry.backdoored]
    report = json.loads(run("scan", *backdoored, "--detector", "digits", "-f", "json").out)
    assert report["summary"]["scored"] == len(backdoored)
    assert report["summary"]["suspicious"] > 0.6 * len(backdoored)


# A shell that starts us in the background makes us ignore SIGINT, and so our children.
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from litmus.cli import main
main()
"""


def test_ctrl_c_stops_at_once_and_loses_nothing_finished(tmp_path: Path) -> None:
    recipe = tmp_path / "long.toml"
    recipe.write_text(RECIPE.format(epochs=400))
    zoo = tmp_path / "zoo"
    command = [sys.executable, "-c", LISTENING, "zoo", "build", str(recipe), "-o", str(zoo)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (zoo / "zoo.json").exists() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert [path.name for path in zoo.iterdir()] == ["zoo.json"]


@pytest.mark.slow
def test_the_demo_does_all_of_it(run: Run, tmp_path: Path) -> None:
    outcome = run("demo", "-o", tmp_path / "demo", "--scale", 0.075)
    assert outcome.code == 0, outcome.err
    last = outcome.out.splitlines()[-1]
    assert re.fullmatch(
        r"AUC \d\.\d\d \(\d\.\d\d to \d\.\d\d\) on \d+ clean \+ \d+ backdoored models, page .+",
        last,
    )
    assert float(last.split()[1]) > 0.7
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("<svg") == 4
    assert "http" not in re.sub(r'(xmlns[:\w]*|href|resource|about)="[^"]*"', "", page)
    assert (tmp_path / "demo" / "backdoored.onnx").exists()


def test_the_api_is_pinned() -> None:
    assert litmus.__all__ == [
        "Failed",
        "InputSpec",
        "LitmusError",
        "Scored",
        "Skipped",
        "TorchModel",
        "Zoo",
        "__version__",
        "build_zoo",
        "evaluate",
        "fit",
        "load_detector",
        "load_recipe",
        "scan",
    ]
    for name in litmus.__all__:
        assert getattr(litmus, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = litmus.nonsense
    assert ULPDetector.name == "ulp"


def test_evade(run: Run, small_zoo: Zoo, small_detector_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.litmus"
    other.write_bytes(small_detector_file.read_bytes())
    tuned, results = tmp_path / "tuned", tmp_path / "results"
    command = (
        "evade", small_zoo.path, "--detector", small_detector_file, "--other", other,
        "--tuned", tuned, "--models", 1, "--set", "epochs=4", "--set", "aim=clean",
        "--fpr", 0.1, "-o", results, "--workers", 1, "--refit", small_zoo.path,
    )  # fmt: skip
    first = run(*command)
    assert first.code == 0, first.err
    assert "backdoored, evading" in first.out
    assert load_detector(tuned / "small-refitted.litmus").scope["num_models"] > 24
    content = json.loads((results / "evasion-clean.json").read_text())
    rows = {(row["detector"], row["group"]) for row in content["rows"]}
    assert {("small", "evading"), ("other", "as trained"), ("refitted", "fine-tuned")} <= rows
    assert content["fine_tuning"]["aim"] == "clean"
    assert str(tmp_path) not in content["command"]
    assert set(content["detectors"]) == {"small", "other"}
    assert "# Evading `small`" in (results / "evasion-clean.md").read_text()
    listed = run("zoo", "list", tuned).out
    for text in ("models of 1x28x28", "backdoored, evading", "backdoored, fine-tuned"):
        assert text in listed
    for options, message in (
        (("--other", small_detector_file), "a detector is named twice"),
        (("--set", "luck=1"), "weight=1.0, aim=low"),
        (("--set", "aim=up"), "unknown aim"),
        (("--models", 0), "--models is impossible"),
        (("--fpr", 0.01), "n = 12 clean models"),
    ):
        refused = run(*command, *options)
        assert refused.code == 4
        assert message in refused.err


def test_leave_one_group_out(
    run: Run, small_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def group(entry: ZooEntry) -> str:
        return "slow" if entry.spec.twin in (0, 1) else "fast"

    monkeypatch.setitem(GROUPINGS, "recipe", group)
    command = ["evaluate", small_zoo.path, "--detector", "noise", "--leave-out", "recipe"]
    quick = ["--set", "num_patterns=2", "--set", "epochs=3", "--fpr", 0.3, "--only", "slow"]
    page = tmp_path / "recipe.json"
    monkeypatch.setitem(PROPERTIES, "alpha", lambda entry: str(entry.spec.twin % 2))
    picture = tmp_path / "breakdown.svg"
    measured = run(*command, *quick, "-f", "json", "-o", page, "--breakdown", picture)
    assert measured.code == 0
    content = json.loads(page.read_text())
    assert [row["group"] for row in content["rows"]] == ["slow"]
    assert content["settings"] == {"num_patterns": 2, "epochs": 3}
    assert [row["group"] for row in content["breakdown"]] == ["all", "alpha: 0", "alpha: 1"]
    assert "recipe left out" in picture.read_text()
    assert content["recipe"]["name"] == small_zoo.recipe["name"]
    for options, message in (
        ((*command, "--detector", "ulp"), "--leave-out takes one --detector"),
        ((*command, "--set", "luck=1"), "unknown setting"),
        ((*command, "--only", "medium"), "no such group"),
        (("evaluate", small_zoo.path, "--detector", "x", "--only", "slow"), "go with --leave-out"),
    ):
        refused = run(*options)
        assert refused.code == 4
        assert message in refused.err


def test_variants_are_compared_and_a_rerun_goes_on(
    run: Run, small_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GROUPINGS, "recipe", lambda e: "ab"[e.spec.twin > 1])
    plan, out = tmp_path / "plan.toml", tmp_path / "out.json"
    first = """leave_out = "recipe"\ngroups = ["a"]\n[settings]\nnum_patterns = 2\nepochs = 2
[[variant]]\nname = "noise"\ndetector = "noise"\n"""
    plan.write_text(first)
    command = ["compare", small_zoo.path, plan, "-o", out, "--fpr", 0.3]
    assert run(*command).code == 0
    (alone,) = json.loads(out.read_text())["variants"]

    more = """[[variant]]\nname = "more"\nsettings = { num_patterns = 3 }\n"""
    plan.write_text(first + more)
    both = run(*command)
    assert both.code == 0
    assert "more" in both.out
    content = json.loads(out.read_text())
    assert content["variants"][0] == alone, "measured again"
    assert [row["variant"] for row in content["rows"]] == ["noise", "more"]
    assert content["rows"][1]["num_patterns"] == 3
    assert content["rows"][1]["leave_out"] == "recipe"
    (difference,) = content["differences"]
    assert (difference["variant"], difference["minus"]) == ("more", "noise")
    aucs = [row["auc"] for row in content["rows"]]
    assert difference["difference"] == pytest.approx(aucs[1] - aucs[0])
    page = out.with_suffix(".md").read_text()
    assert f"{aucs[1]:.3f}" in page
    assert "litmus" in page

    # A new variant in between that can't be fitted costs nothing that was measured.
    broken = """[[variant]]\nname = "no"\nsettings = { num_patterns = 0 }\n"""
    plan.write_text(first.replace("[[variant]]", broken + "[[variant]]", 1))
    before = json.loads(out.read_text())["variants"][0]
    assert run(*command).code == 4
    assert json.loads(out.read_text())["variants"][0] == before
    plan.write_text(first + broken + more)
    assert run(*command).code == 4
    assert [r["variant"] for r in json.loads(out.read_text())["variants"]] == ["noise", "more"]

    plan.write_text(first)
    assert run(*command, "--seed", 1).code == 0
    assert json.loads(out.read_text())["variants"][0]["measure"]["seed"] == 1
    out.write_text("{}")
    refused = run(*command)
    assert (refused.code, "not the results of a comparison" in refused.err) == (4, True)
    assert run("compare", small_zoo.path, plan, "-o", tmp_path / "out.txt").code == 4
