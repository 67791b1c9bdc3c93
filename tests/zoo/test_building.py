"""Building a zoo with real worker processes, and killing them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from litmus.artifacts import read_header
from litmus.datasets import ImageDataset
from litmus.errors import DataError, LitmusError, RecipeError, UsageError, ZooError
from litmus.formats import zoo_file
from litmus.zoo import BuildEvent, Recipe, Zoo, build
from litmus.zoo.engines import LocalEngine
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import write_recipe_table, write_rejected
from litmus.zoo.verify import verify
from tests.conftest import children_running, tiny_recipe_table

TABLE = tiny_recipe_table(twins=3)
BUILDER = """
import json, sys
from litmus.zoo import build
from litmus.zoo.recipe import parse_recipe
for event in build(parse_recipe(json.loads(sys.argv[1]), "x"), sys.argv[2]):
    print(event.kind, flush=True)
"""


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(tiny_recipe_table(**{"twins": 3, **changes}), "x")


def start(chosen: Recipe, out: Path, **options: Any) -> Generator[BuildEvent, None, None]:
    return build(chosen, out, **options)


def workers() -> list[psutil.Process]:
    return children_running("litmus.zoo.worker")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that tell times and hosts, and what a killed writer left."""
    files = [p for p in folder.iterdir() if not p.name.startswith(".writing-")]
    return {p.name: p.read_bytes() for p in files if not p.name.endswith(".build.json")}


def ids(folder: Path, suffix: str = ".safetensors") -> set[str]:
    return {p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    """A zoo of six models, built by one worker in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    events = list(build(recipe(), folder))
    assert [event.kind for event in events] == ["found"] + ["accepted"] * 6
    assert [event.done for event in events] == list(range(7))
    assert {event.total for event in events} == {6}
    specs = expand(recipe(), digits.input_spec)
    assert [event.model_id for event in events[1:]] == [spec.id for spec in specs]
    assert all(event.cpu_seconds > 0 for event in events[1:])
    return folder


@pytest.fixture
def no_worker_survives() -> Iterator[None]:
    yield
    assert not workers()


def test_a_zoo_holds_the_models_of_its_recipe_and_nothing_else(
    undisturbed: Path, digits: ImageDataset
) -> None:
    specs = expand(recipe(), digits.input_spec)
    assert [entry.spec for entry in Zoo.open(undisturbed).entries] == specs
    wanted = {f"{s.id}{suffix}" for s in specs for suffix in (".safetensors", ".build.json")}
    assert {path.name for path in undisturbed.iterdir()} == {"zoo.json", *wanted}
    for path in undisturbed.glob("*.safetensors"):
        assert zoo_file.load(path).input_spec == digits.input_spec
        times = json.loads(path.with_name(f"{path.stem}.build.json").read_text())
        assert times.keys() == {"cpu_seconds", "seconds", "host", "process", "finished"}


@pytest.mark.parametrize(("scale", "total"), [(1.0, 6), (0.7, 4), (0.01, 2)])
def test_what_is_there_is_not_built_again(undisturbed: Path, scale: float, total: int) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    events = list(build(recipe(), undisturbed, scale=scale, workers=2))
    assert events == [BuildEvent(kind="found", done=total, total=total, detail="0 given up")]
    assert {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


@pytest.mark.usefixtures("no_worker_survives")
def test_closing_stops_all_workers_and_loses_only_what_was_in_flight(
    undisturbed: Path, tmp_path: Path
) -> None:
    events = start(recipe(), tmp_path, workers=2)
    assert [next(events).kind for _ in range(2)] == ["found", "accepted"]
    crew = workers()
    assert len(crew) == 2
    events.close()
    assert not any(worker.is_running() for worker in crew)
    assert 1 <= len(ids(tmp_path)) < 6
    assert contents(tmp_path).items() <= contents(undisturbed).items()


@pytest.mark.slow
@pytest.mark.usefixtures("no_worker_survives")
def test_a_build_that_is_killed_resumes_to_the_same_bytes_with_two_workers(
    undisturbed: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BUILDER, json.dumps(TABLE), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        said = [builder.stdout.readline().strip() for _ in range(3)]
        assert said == ["found", "accepted", "accepted"]
        builder.kill()
    there = ids(tmp_path)
    assert 2 <= len(there) < 6
    # A writer that was killed in mid-write an hour ago left this.
    left = tmp_path / ".writing-abc"
    left.write_bytes(b"half a mod")
    os.utime(left, (time.time() - 3600,) * 2)

    # The old worker may still finish the model in its hands.
    events = list(build(recipe(), tmp_path, workers=2))
    assert events[0].done >= len(there)
    assert {event.model_id for event in events[1:]} <= ids(undisturbed) - there
    assert events[-1].done == events[-1].total == 6
    assert contents(tmp_path) == contents(undisturbed)
    assert not left.exists()


@pytest.mark.usefixtures("no_worker_survives")
def test_rejected_models_get_substitutes_and_dead_workers_are_replaced(
    tmp_path: Path, digits: ImageDataset
) -> None:
    # One poisoned image is never enough for this gate.
    chosen = recipe(
        twins=2,
        training={"epochs": 2},
        attack={"label_map": "source_specific", "poison_ratio": 0.01},
        gates={"attack_success": 0.99},
    )
    specs = expand(chosen, digits.input_spec)
    bad, clean = specs[::2], specs[1::2]
    # Had the first control failed before, its next attempt would be in its place.
    write_recipe_table(tmp_path, chosen.to_json())
    write_rejected(tmp_path, clean[0].id, {"reason": "an earlier build's"})
    events = []
    for event in build(chosen, tmp_path, workers=2):
        if event.done == 3:  # one worker has nothing to do, the other has the last model
            for worker in workers():
                worker.kill()
        events.append(event)

    attempts = [[s, s.next_attempt(), s.next_attempt().next_attempt()] for s in bad]
    assert ids(tmp_path) == {clean[0].next_attempt().id, clean[1].id}
    every_attempt = {spec.id for row in attempts for spec in row}
    assert ids(tmp_path, ".rejected.json") == {clean[0].id, *every_attempt}
    assert Counter(event.kind for event in events) == {
        "found": 1, "accepted": 2, "rejected": 4, "given_up": 2
    }  # fmt: skip
    assert {e.model_id for e in events if e.kind == "given_up"} == {row[2].id for row in attempts}
    assert events[-1].done == events[-1].total == 4
    for row in attempts:
        for number, spec in enumerate(row):
            facts = json.loads((tmp_path / f"{spec.id}.rejected.json").read_text())
            assert facts["spec"]["attempt"] == number
            assert facts["reason"].startswith("attack success 0.")
            assert ModelSpec.from_json(facts["spec"]) == spec
    once = tmp_path / "once"
    once.mkdir()
    for file in tmp_path.glob("*.*"):
        if file.name != "zoo.json":
            shutil.copy(file, once)
    assert list(build(replace(chosen, attempts=1), once)) == [
        BuildEvent(kind="found", done=4, total=4, detail="3 given up")
    ]
    assert list(build(chosen, tmp_path)) == [
        BuildEvent(kind="found", done=4, total=4, detail="2 given up")
    ]


def test_a_folder_of_another_recipe_is_refused(undisturbed: Path) -> None:
    before = contents(undisturbed)
    with pytest.raises(ZooError, match="another recipe; seed differs") as caught:
        next(start(recipe(seed=1), undisturbed))
    assert caught.value.where == undisturbed / "zoo.json"
    assert contents(undisturbed) == before


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({}, {"workers": 0}, UsageError, "--workers is impossible (expected at least 1, got 0)"),
        ({}, {"scale": 0.0}, UsageError, "--scale is impossible"),
        ({}, {"scale": 1.5}, UsageError, "(expected above 0, at most 1, got 1.5)"),
        ({"dataset": {"name": "mnist"}}, {"data": "none"}, DataError, "'mnist' not found"),
        (
            {"dataset": {"train_images": 1353}},
            {},
            RecipeError,
            "dataset.train_images: too few training images (expected at most 1352, got 1353)",
        ),
        (
            {"triggers": {"binary": 2, "colour": 2}},
            {},
            RecipeError,
            "colour triggers need colour images",
        ),
        ({"triggers": {"size": 29}}, {}, RecipeError, "the trigger is larger than the image"),
        (
            {"attack": {"place": "fixed", "row": 24, "column": 0}},
            {},
            RecipeError,
            "the patch leaves the image at row 24",
        ),
        (
            {"architecture": [{"name": "vgg"}, {"name": "vgg", "configuration": [1, *"MMMMM"]}]},
            {},
            RecipeError,
            "pooling leaves no pixel",
        ),
    ],
)
def test_what_is_impossible_is_said_before_anything_is_written(
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    error: type[LitmusError],
    message: str,
) -> None:
    with pytest.raises(error) as caught:
        next(start(recipe(**changes), tmp_path / "zoo", **options))
    assert message in str(caught.value)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.usefixtures("no_worker_survives")
def test_what_a_worker_can_not_do_is_told_with_the_model(tmp_path: Path) -> None:
    few = recipe(dataset={"train_images": 2}, attack={"poison_ratio": 0.01})
    with pytest.raises(ZooError, match=r"model [0-9a-f]{16}: no image would be poisoned"):
        list(build(few, tmp_path))
    assert ids(tmp_path) == set()


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same zoo, two models trained at a time, by one worker in one go."""
    folder = tmp_path_factory.mktemp("stacked")
    events = list(build(recipe(), folder, stack=2))
    assert [event.kind for event in events] == ["found"] + ["accepted"] * 6
    assert [event.done for event in events] == list(range(7))
    return folder


def test_a_zoo_of_stacks_says_so_and_has_the_same_models(stacked: Path, undisturbed: Path) -> None:
    plan = {"size": 2, "device": "cpu", "precision": "float32", "convolution": "grouped"}
    assert json.loads((stacked / "zoo.json").read_text())["stack"] == plan
    assert "stack" not in json.loads((undisturbed / "zoo.json").read_text())
    assert ids(stacked) == ids(undisturbed)
    for place, entry in enumerate(Zoo.open(stacked).entries):
        facts = read_header(entry.path, ZooError)["stack"]
        assert facts == {**plan, "place": place % 2}
        assert "stack" not in read_header(undisturbed / entry.path.name, ZooError)
    assert [f.problem for f in verify(stacked, retrain=3)] == [None] * 6


@pytest.mark.usefixtures("no_worker_survives")
def test_stacks_that_are_stopped_and_gone_on_with_by_two_workers_have_the_same_bytes(
    stacked: Path, tmp_path: Path
) -> None:
    events = start(recipe(), tmp_path, stack=2)
    assert [next(events).kind for _ in range(2)] == ["found", "accepted"]
    events.close()
    assert 1 <= len(ids(tmp_path)) < 6
    # One of a stack is gone: its neighbours in the next one will be others.
    for model_id in sorted(ids(tmp_path))[:1]:
        (tmp_path / f"{model_id}.safetensors").unlink()
    list(build(recipe(), tmp_path, workers=2))  # with the plan that `zoo.json` has
    assert contents(tmp_path) == contents(stacked)


@pytest.mark.usefixtures("no_worker_survives")
def test_a_stacks_rejected_models_get_substitutes_and_dead_workers_are_replaced(
    tmp_path: Path, digits: ImageDataset
) -> None:
    chosen = recipe(twins=2, gates={"clean_accuracy": 1.0}, attempts=2)
    events: list[BuildEvent] = []
    for event in build(chosen, tmp_path, stack=2, workers=2):
        if len(events) == 1:  # one worker has its next stack before it, the other one in hand
            for worker in workers():
                worker.kill()
        events.append(event)
    specs = expand(chosen, digits.input_spec)
    for kind, made in (("rejected", specs), ("given_up", [s.next_attempt() for s in specs])):
        told = [event.model_id for event in events if event.kind == kind]
        assert sorted(told) == sorted(spec.id for spec in made)
    assert len(events) == 9
    assert events[-1].done == events[-1].total == 4


def test_a_zoo_that_was_begun_is_not_gone_on_with_otherwise(
    stacked: Path, undisturbed: Path
) -> None:
    for folder, options, message in (
        (stacked, {"stack": 3}, "expected 2 at a time on cpu in float32, got 3 at a time"),
        (undisturbed, {"stack": 2}, "expected 1 at a time on cpu in float32, got 2 at a time"),
        (undisturbed, {"device": "cuda"}, "got 1 at a time on cuda in float32"),
    ):
        before = contents(folder)
        with pytest.raises(ZooError, match=message) as caught:
            next(start(recipe(), folder, **options))
        assert caught.value.where == folder / "zoo.json"
        assert contents(folder) == before
    for folder in (stacked, undisturbed):
        assert len(list(build(recipe(), folder, stack="auto"))) == 1


@pytest.mark.parametrize(("seconds_of_two", "size"), [(0.5, 2), (1.0, 1)])
def test_auto_measures_once_and_keeps_what_is_fastest(
    stacked: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds_of_two: float,
    size: int,
) -> None:
    asked = []

    def measured(*arguments: object) -> dict[int, float]:
        asked.append(arguments)
        return {1: 1.0, 2: seconds_of_two}

    monkeypatch.setattr(LocalEngine, "step_seconds", measured)
    for _ in range(2):
        for _ in build(recipe(), tmp_path, stack="auto", scale=0.34):
            pass
    assert len(asked) == 1
    made = contents(tmp_path)
    assert json.loads(made.pop("zoo.json"))["stack"]["size"] == size
    assert made.items() <= contents(stacked if size == 2 else undisturbed).items()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("options", [{}, {"stack": 2}])
def test_a_gpu_that_is_not_there(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--device: there is no such GPU .*got cuda"):
        list(build(recipe(), tmp_path, device="cuda", **options))
    assert "stack" not in json.loads((tmp_path / "zoo.json").read_text())
