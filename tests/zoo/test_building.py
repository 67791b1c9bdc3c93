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

from litmus.datasets import ImageDataset
from litmus.errors import DataError, LitmusError, RecipeError, UsageError, ZooError
from litmus.formats import zoo_file
from litmus.zoo import BuildEvent, Recipe, Zoo, build
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import write_recipe_table, write_rejected
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
