"""Every experiment from the command line, on a zoo of digits that takes the place of MNIST's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from litmus.reproduction import EXPERIMENTS
from litmus.reproduction import timing as timing_module
from litmus.zoo import Zoo
from tests.cli.conftest import Run
from tests.conftest import SMALL_RECIPE, Folders, linked_folders
from tests.reproduction.conftest import shorten_inversions
from tests.reproduction.test_detection import FIELDS

COMPANION = (
    SMALL_RECIPE.replace('name = "small"', 'name = "lower"\ncontrols = false')
    .replace("twins = 20", "twins = 18")
    .replace("epochs = 6", "epochs = 1")
    .replace("width = 6", "width = 2")
    .replace("attack_success = 0.8", "attack_success = 0")
    .replace("[triggers]", "poison_ratio = 0.25\n[triggers]")
)
DRAWN = {
    "figure1": ["figure1.svg"],
    "figure2": ["figure2.svg"],
    "figure3": ["figure3.svg"],
    "figure4": ["figure4.svg", "figure4-gated.svg"],
    "figure5": ["figure5.svg"],
}


@pytest.fixture(scope="module")
def shared(small_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    """One cache for all experiments of this file, and short inversions."""
    folders = linked_folders(small_zoo, tmp_path_factory.mktemp("paper"))
    (folders.recipes / "small-poison-ratios.toml").write_text(COMPANION)
    with pytest.MonkeyPatch.context() as patch:
        shorten_inversions(patch)
        patch.setattr(timing_module, "_LOOP_PAIRS", 3)
        yield folders


def options(folders: Folders, output: Path) -> list[object]:
    return [
        "--dataset", "small", "--recipes", folders.recipes, "--zoos", folders.zoos, "-o", output,
        "--seeds", 1, "--patterns", "1,2", "--epochs", 2, "--workers", 1,
        "--baseline-models", "small=4", "--cleanse-models", "small=4",
    ]  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_writes_json_markdown_and_pictures(
    experiment: str, run: Run, shared: Folders, tmp_path: Path
) -> None:
    asked = ("reproduce", experiment, *options(shared, tmp_path))
    outcome = run(*asked)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("about ")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{experiment}.json", f"{experiment}.md", *DRAWN.get(experiment, [])}
    for name in DRAWN.get(experiment, []):
        ElementTree.fromstring((tmp_path / name).read_text())
    content = json.loads((tmp_path / f"{experiment}.json").read_text())
    assert {"command", "recipes", "scale", "seeds", "machine", "litmus_version"} <= set(content)
    text = (tmp_path / f"{experiment}.md").read_text()
    assert content["command"] in text
    for place in (shared.zoos, tmp_path, "--workers"):
        assert str(place) not in content["command"]
    if experiment in ("table1", "figure4", "figure5", "ablations", "intuition"):
        assert all(set(row) >= FIELDS for row in content["rows"])
        assert f"{content['rows'][0]['auc']:.3f} (" in text

    again = run(*asked)
    assert "0 models to train, 0 fits, 0 measurements" in again.out
    if experiment != "timing":
        assert json.loads((tmp_path / f"{experiment}.json").read_text()) == content


def test_figure_4_says_what_is_gated_and_shared(run: Run, shared: Folders, tmp_path: Path) -> None:
    run("reproduce", "figure4", *options(shared, tmp_path))
    content = json.loads((tmp_path / "figure4.json").read_text())
    points = [(p["poison_ratio"], p["gated"]) for p in content["points"]]
    assert points == [(0.5, False), (0.5, True), (0.25, False), (0.25, True)]
    assert all(p["reason"] for p in content["points"] if p["gated"])  # fewer than 20
    text = (tmp_path / "figure4.md").read_text()
    assert "up to 5 % fewer" in text
    assert "fewer than 20" in text


def test_table_1_stands_beside_the_paper(run: Run, shared: Folders, tmp_path: Path) -> None:
    run("reproduce", "table1", *options(shared, tmp_path))
    text = (tmp_path / "table1.md").read_text()
    assert "AUC, paper" in text
    assert "Differences from the paper" in text
    assert "attack_based | - | clean" in text
    content = json.loads((tmp_path / "table1.json").read_text())
    zoo = content["datasets"]["small"]["zoo"]
    assert {"training_flops_per_model", "cpu_seconds_per_accepted_model", "n_rejected"} <= set(zoo)


def test_a_dry_run_computes_and_writes_nothing(run: Run, folders: Folders, tmp_path: Path) -> None:
    entry = next((folders.zoos / "small").glob("*.safetensors"))
    entry.unlink()
    before = sorted(folders.zoos.rglob("*"))
    outcome = run("reproduce", "table1", *options(folders, tmp_path / "out"), "--dry-run")
    assert outcome.code == 0
    assert "on 1 process: 1 models to train, 4 fits, 8 measurements; 0 already done" in outcome.out
    assert sorted(folders.zoos.rglob("*")) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table1", "--recipes", "nowhere"], "no such recipe"),
        (["figure1", "--dataset", "a", "--dataset", "b"], "takes one data set"),
        (["table1", "--dataset", "nonsense"], "nonsense.toml"),
        (["figure4", "--dataset", "small"], "small-poison-ratios.toml"),
        (["table1", "--dataset", "small", "--scale", "2"], "--scale"),
        (["table1", "--dataset", "small", "--patterns", "x"], "--patterns"),
        (["table1", "--dataset", "small", "--seeds", "0"], "--seeds"),
        (["table1", "--dataset", "small", "--baseline-models", "many"], "--baseline-models"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], says: str, run: Run, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders.zoos)
    where = [] if "--recipes" in arguments else ["--recipes", str(folders.recipes)]
    outcome = run("reproduce", *arguments, *where)
    assert outcome.code == 4
    assert says in outcome.err
