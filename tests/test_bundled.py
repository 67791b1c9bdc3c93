"""The detectors that come with Litmus: each is whole, says how it was made, and is picked."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from tools.bundle import BundleRecipe, commands, load_bundle_recipe, main

from litmus.artifacts import parse_tensors
from litmus.detectors import BUNDLED, bundled_detectors, load_detector
from litmus.detectors.candidates import NEVER_PICKED, Candidates
from litmus.errors import DetectorError
from litmus.reports.detectors import fit_command
from litmus.scanning import Scored, Skipped, scan
from litmus.zoo import Zoo, load_recipe
from tests.conftest import REPOSITORY
from tests.formats.onnx_models import classifier, save

MOST_BYTES = 5_000_000
NAMES = list(bundled_detectors())


def test_all_together_are_small() -> None:
    assert NAMES
    assert sum(path.stat().st_size for path in bundled_detectors().values()) <= MOST_BYTES
    assert {path.name for path in BUNDLED.iterdir()} == {f"{name}.litmus" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_whole_and_holds_nothing_but_the_detector(name: str) -> None:
    path = BUNDLED / f"{name}.litmus"
    detector = load_detector(path)
    # Whatever else a file held, a training image say, would be lost here.
    arrays, header = parse_tensors(path.read_bytes(), path, DetectorError)
    again, same = parse_tensors(detector.to_bytes(), path, DetectorError)
    assert header == same
    assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in again.items()}


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_for_and_how_well_it_does(name: str) -> None:
    detector = load_detector(name)
    scope, held = detector.scope, detector.held_out
    assert scope["dataset"] == name
    assert len(scope["class_names"]) == detector.input_spec.num_classes
    assert scope["architectures"]
    assert scope["attacks"]
    judged = scope.get("calibrated_on", scope)
    assert judged["num_models"] == held["n_clean"] + held["n_backdoored"]
    assert 0.5 < held["auc_low"] <= held["auc"] <= held["auc_high"] <= 1
    assert detector.calibration.smallest_p_value <= 0.05
    if judged is scope:
        assert held["learning_curve"]["points"][-1]["auc"] == held["auc"]


@pytest.mark.parametrize("name", NAMES)
def test_it_was_made_from_its_recipe(name: str) -> None:
    recipe, scope = load_bundle_recipe(name), load_detector(name).scope
    last = recipe.further or recipe
    how = dict(scope["fit"])
    assert (how.pop("parts_from", None) is None) is (recipe.further is None)
    assert len(how.pop("parts_from_sha256", "0" * 64)) == 64
    assert how == {"detector": last.detector, "given": dict(last.settings)}
    assert scope["seed"] == last.seed
    if recipe.further is not None:
        assert scope["calibrated_on"]["zoo"] == load_recipe(REPOSITORY / last.zoo).name
    also = [load_recipe(REPOSITORY / each.zoo).name for each in recipe.also]
    assert [each["zoo"] for each in scope.get("also_calibrated_on", [])] == also
    zoo = load_recipe(REPOSITORY / recipe.zoo)
    told = scope["recipe"]
    assert (told["name"], told["seed"], told["twins"]) == (zoo.name, zoo.seed, zoo.twins)
    assert told["dataset"]["name"] == zoo.dataset.name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_it_tells_is_the_one_that_makes_it(name: str) -> None:
    recipe = load_bundle_recipe(name)
    made = commands(recipe, Path(f"{name}.litmus"), zoos=Path("zoos"))
    *_, fit = (command for command in made if command[1] == "fit")
    told = fit_command(load_detector(name), name)
    assert told is not None
    short = [w.removeprefix("zoos/") if w.endswith(".litmus") else w for w in fit]
    assert sorted(shlex.split(told)) == sorted("ZOO" if w.startswith("zoos/") else w for w in short)


def test_every_shape_has_one_pick(tmp_path: Path) -> None:
    candidates = Candidates.bundled()
    assert {*candidates.detectors, *candidates.unpicked} == set(NAMES)
    assert set(candidates.unpicked) == set(NEVER_PICKED)
    shapes = [detector.input_spec for detector in candidates.detectors.values()]
    assert len(set(shapes)) == len(shapes)
    for name in NAMES:
        spec = load_detector(name).input_spec
        save(classifier(spec=spec, gain=0.01), tmp_path / f"{name}.onnx")
    for result in scan(tmp_path):
        name = Path(str(result.path)).stem
        if name in candidates.detectors:
            assert isinstance(result, Scored)
            assert result.detector == name
        elif isinstance(result, Scored):
            assert result.detector != name
        else:
            assert isinstance(result, Skipped)
            assert f"{name} (" in result.reason


def test_a_recipe_is_two_commands_that_work(
    small_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litmus.cli import main as litmus
    from tests.conftest import SMALL_RECIPE

    (tmp_path / "small.toml").write_text(SMALL_RECIPE)
    (tmp_path / "zoos").mkdir()
    (tmp_path / "zoos" / "small").symlink_to(small_zoo.path, target_is_directory=True)
    recipe = BundleRecipe(
        zoo=str(tmp_path / "small.toml"),
        detector="noise",
        seed=4,
        settings={"num_patterns": 2, "epochs": 2, "scale_per_model": True},
    )
    output = tmp_path / "small.litmus"
    for command in commands(recipe, output, zoos=tmp_path / "zoos"):
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as done:
            litmus()
        assert not done.value.code
    scope = load_detector(output).scope
    assert scope["fit"] == {"detector": "noise", "given": dict(recipe.settings)}
    assert scope["seed"] == 4


def test_the_commands_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    main(["digits", "--dry-run", "--workers", "3"])
    build, fit = capsys.readouterr().out.splitlines()
    assert build.startswith("litmus zoo build src/litmus/recipes/digits.toml -o zoos/digits")
    assert build.endswith("--workers 3")
    assert fit.startswith("litmus fit zoos/digits -o src/litmus/bundled/digits.litmus")
    main(["mnist", "--dry-run"])
    _, fit, build, further = capsys.readouterr().out.splitlines()
    assert "-o zoos/mnist-parts.litmus" in fit
    assert "recipes/jumbo/mnist-longer.toml" in build
    assert "-o src/litmus/bundled/mnist.litmus" in further
    assert further.endswith("--parts-from zoos/mnist-parts.litmus")
    main(["cifar10", "--dry-run"])
    *_, build, also = capsys.readouterr().out.splitlines()
    assert build.endswith("--start-from zoos/strong-cifar10")
    bundled = "src/litmus/bundled/cifar10.litmus"
    assert also == f"litmus calibrate {bundled} zoos/grown-cifar10 -o {bundled}"
    with pytest.raises(SystemExit, match=r"there are: .*digits"):
        main(["nothing"])
