from __future__ import annotations

import json
from pathlib import Path

import pytest

from litmus.detectors import load_detector
from litmus.models import InputSpec
from litmus.zoo import Zoo
from tests.cli.conftest import Run
from tests.conftest import relabelled_zoo
from tests.formats.onnx_models import classifier, save

DIGITS = InputSpec(channels=1, height=28, width=28, num_classes=10)


def test_too_few_models_are_told(run: Run, small_zoo: Zoo) -> None:
    outcome = run("evaluate", small_zoo.path, "--references", "--set", "steps=2")
    assert outcome.code == 2
    assert "expected at least 10 twins in the training split" in outcome.err


def test_a_detector_or_references_are_evaluated_not_both(
    run: Run, small_zoo: Zoo, small_detector_file: Path
) -> None:
    for options in (
        (),
        ("--references", "--detector", small_detector_file),
        ("--detector", small_detector_file, "--others", small_detector_file),
    ):
        outcome = run("evaluate", small_zoo.path, *options)
        assert outcome.code == 4
        assert "either --detector or --references" in outcome.err


@pytest.mark.parametrize(
    "options", [("--effort", "thorough"), ("--breakdown", "b.svg"), ("--leave-out", "attack")]
)
def test_what_references_do_not_take_is_no_silence(
    run: Run, small_zoo: Zoo, options: tuple[str, ...]
) -> None:
    outcome = run("evaluate", small_zoo.path, "--references", *options)
    assert outcome.code == 4
    assert "--references leaves groups out by itself" in outcome.err


def test_a_folder_without_others_is_told(run: Run, small_zoo: Zoo, tmp_path: Path) -> None:
    outcome = run("evaluate", small_zoo.path, "--references", "--others", tmp_path)
    assert outcome.code == 4
    assert "no ONNX files in the folder" in outcome.err


def test_they_are_evaluated_on_groups_that_they_never_saw(
    run: Run, small_zoo: Zoo, tmp_path: Path
) -> None:
    # Thirteen twins to train on: a fifth less is still enough.
    zoo = relabelled_zoo(small_zoo, tmp_path / "zoo", twins=13, split="train")
    (tmp_path / "others").mkdir()
    save(classifier(spec=DIGITS), tmp_path / "others" / "random.onnx")
    outcome = run(
        "evaluate", zoo, "--references", "--others", tmp_path / "others",
        "--set", "steps=40", "--set", "learning_rate=0.1",
        "-f", "json", "-o", tmp_path / "r.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    content = json.loads((tmp_path / "r.json").read_text())
    assert set(content["floors"]) == {f"fold {i}" for i in range(1, 6)}
    assert sum(sum(row.values()) for row in content["found"].values()) == 26 * 4
    whole = content["rows"][0]
    assert 0.5 < whole["found"] <= 1
    assert set(content["others"]) == {"random.onnx"}
    assert 0 <= content["others"]["random.onnx"] <= 1
    assert content["settings"]["steps"] == 40


def test_a_fit_learns_them_unless_told_not_to(
    run: Run, small_zoo: Zoo, detector_with_references: Path, tmp_path: Path
) -> None:
    assert load_detector(detector_with_references).references is not None
    output = tmp_path / "d.litmus"
    command = ("fit", small_zoo.path, "-o", output, "--detector", "last_layer")
    outcome = run(*command, "--no-references")
    assert outcome.code == 0, outcome.err
    assert load_detector(output).references is None
    told = [run("detectors", file).out for file in (detector_with_references, output)]
    assert "learned on 10 clean models; 4 others" in " ".join(told[0].split())
    assert "none: what is not stated of a model is assumed" in told[1]


def test_a_fit_without_images_says_what_to_do(
    run: Run, small_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**small_zoo.entries[0].spec.dataset, "name": "mnist"}
    zoo = relabelled_zoo(small_zoo, tmp_path / "zoo", twins=12, dataset=other)
    (tmp_path / "empty").mkdir()
    command = ("fit", zoo, "-o", tmp_path / "d.litmus", "--detector", "last_layer")
    named = run(*command, "--no-references", "--data", tmp_path / "empty")
    assert (named.code, "data set 'mnist' not found" in named.err) == (2, True)
    monkeypatch.setenv("LITMUS_DATA", str(tmp_path / "empty"))
    outcome = run(*command)
    assert outcome.code == 2
    assert "reference images need the zoo's data set" in outcome.err
    assert "--no-references" in outcome.err
    assert not (tmp_path / "d.litmus").exists()


def test_a_fit_takes_images_from_where_it_is_told_alone(
    run: Run, small_zoo: Zoo, tmp_path: Path
) -> None:
    from PIL import Image

    for label in range(10):
        (tmp_path / "own" / str(label)).mkdir(parents=True)
        for i in range(5):
            picture = Image.new("L", (28, 28), 20 * label + i)
            picture.save(tmp_path / "own" / str(label) / f"{i}.png")
    own = {"name": "folder", "image_size": 28, "channels": 1}
    zoo = relabelled_zoo(small_zoo, tmp_path / "zoo", twins=20, dataset=own)
    for detector, settings in {
        "stamps": ("--set", "steps=2"),
        "ulp": ("--set", "start=background", "--set", "epochs=1"),
    }.items():
        fit = ("fit", zoo, "-o", tmp_path / "d.litmus", "--detector", detector, *settings)
        quick = ("--set", "members=2", "--no-references", "--no-learning-curve")
        outcome = run(*fit, *quick, "--data", tmp_path / "own")
        assert outcome.code == 0, outcome.err
        assert run(*fit, *quick).code == 2


def test_digits_come_from_no_folder(run: Run, small_zoo: Zoo, tmp_path: Path) -> None:
    outcome = run("fit", small_zoo.path, "-o", tmp_path / "d.litmus", "--data", tmp_path)
    assert outcome.code == 2
    assert "digits come with scikit-learn" in outcome.err
