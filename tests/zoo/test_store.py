from __future__ import annotations

import json
from pathlib import Path

import pytest

from litmus.artifacts import encode_tensors, parse_tensors
from litmus.datasets import ImageDataset
from litmus.errors import ZooError
from litmus.zoo import Zoo
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import Recipe, parse_recipe
from litmus.zoo.store import (
    finished_ids,
    read_build,
    read_entry,
    read_recipe_table,
    write_accepted,
    write_recipe_table,
    write_rejected,
)
from litmus.zoo.trainer import train_model
from tests.conftest import tiny_recipe_table

RECIPE = parse_recipe(
    tiny_recipe_table(dataset={"name": "digits", "train_images": 320}), "zoo.toml"
)


@pytest.fixture(scope="module")
def models(digits: ImageDataset) -> dict[str, bytes]:
    """The files of a zoo of three twins by id, in the recipe's order."""
    return {
        spec.id: train_model(spec, digits).content for spec in expand(RECIPE, digits.input_spec)
    }


@pytest.fixture
def folder(tmp_path: Path, models: dict[str, bytes]) -> Path:
    write_recipe_table(tmp_path, RECIPE.to_json())
    for model_id in sorted(models):
        write_accepted(tmp_path, model_id, models[model_id], {"cpu_seconds": 1.5})
    return tmp_path


def test_a_zoo_lists_its_models_in_the_order_of_the_recipe(
    folder: Path, models: dict[str, bytes], digits: ImageDataset
) -> None:
    zoo = Zoo.open(folder)
    assert [entry.id for entry in zoo.entries] == list(models)
    assert [entry.spec for entry in zoo.entries] == expand(RECIPE, digits.input_spec)
    assert [entry.backdoored for entry in zoo.entries] == [True, False] * 3
    assert zoo.input_spec == digits.input_spec
    assert zoo.recipe == RECIPE.to_json()
    first = zoo.entries[0]
    assert first.path == folder / f"{first.id}.safetensors"
    assert (first.architecture, first.attack) == ("vgg", "patch, untargeted")
    assert first.trigger_id.startswith("binary-")
    assert read_build(first) == {"cpu_seconds": 1.5}
    assert Zoo.open(str(folder)) == zoo


def test_splits_are_those_of_the_headers(folder: Path, models: dict[str, bytes]) -> None:
    zoo = Zoo.open(folder)
    train, test = zoo.split("train"), zoo.split("test")
    assert [e.id for e in train] == [*list(models)[:2], *list(models)[4:]]
    assert [e.id for e in test] == list(models)[2:4]
    assert not {e.trigger_id for e in train} & {e.trigger_id for e in test}
    for entry in test[:1]:
        entry.path.unlink()
    with pytest.raises(ZooError, match=r"too few models in the test split .*clean and backdoored"):
        Zoo.open(folder).split("test")


def test_what_is_done_is_told_by_names(folder: Path, models: dict[str, bytes]) -> None:
    write_rejected(folder, "0" * 16, {"reason": "attack success 0.5"})
    (folder / ".writing-abc").touch()
    assert finished_ids(folder) == (set(models), {"0" * 16})
    assert json.loads((folder / f"{'0' * 16}.rejected.json").read_text()) == {
        "reason": "attack success 0.5"
    }
    assert len(Zoo.open(folder).entries) == 6


def test_times_may_be_lost(folder: Path) -> None:
    entry = Zoo.open(folder).entries[0]
    entry.path.with_name(f"{entry.id}.build.json").unlink()
    assert read_build(entry) == {}


def test_a_folder_belongs_to_one_recipe(folder: Path) -> None:
    write_recipe_table(folder, RECIPE.to_json())
    other: Recipe = parse_recipe(
        tiny_recipe_table(dataset={"train_images": 320}, twins=4), "zoo.toml"
    )
    with pytest.raises(ZooError, match=r"another recipe; twins differs \(expected 3, got 4\)"):
        write_recipe_table(folder, other.to_json())
    assert read_recipe_table(folder) == RECIPE.to_json()


def test_other_folders_are_no_zoos(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ZooError, match="not a model zoo"):
            Zoo.open(path)
    write_recipe_table(tmp_path, RECIPE.to_json())
    with pytest.raises(ZooError, match="no models yet"):
        Zoo.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": 3}', "\udcff"])
def test_a_damaged_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "zoo.json").write_text(content, errors="surrogateescape")
    with pytest.raises(ZooError, match=r"zoo\.json: damaged"):
        Zoo.open(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a zoo model"),
        ({"spec": {}}, "malformed header"),
        ({"spec": None}, "malformed header"),
        ({"spec": {"input_spec": {"channels": "x"}}}, "malformed header"),
    ],
)
def test_a_damaged_model_is_named(
    folder: Path, models: dict[str, bytes], changes: dict[str, object], message: str
) -> None:
    path = folder / f"{min(models)}.safetensors"
    arrays, header = parse_tensors(models[min(models)], path, ZooError)
    path.write_bytes(encode_tensors(arrays, {**header, **changes}))
    with pytest.raises(ZooError, match=f"{path.name}: {message}"):
        read_entry(path)
    path.write_bytes(b"short")
    with pytest.raises(ZooError, match=f"{path.name}: .* cut short"):
        Zoo.open(folder)
