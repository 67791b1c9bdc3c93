"""Models that go on from the weights of others, and zoos that are read as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litmus.datasets import ImageDataset
from litmus.errors import LitmusError, RecipeError, ZooError
from litmus.fitting import assign_folds
from litmus.formats import zoo_file
from litmus.zoo import Recipe, Zoo, build
from litmus.zoo.ancestors import ancestors_of
from litmus.zoo.expansion import expand
from litmus.zoo.groups import Seat
from litmus.zoo.recipe import load_recipe, parse_recipe
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import train_models
from litmus.zoo.store import named_zoos
from litmus.zoo.trainer import train_model
from litmus.zoo.verify import verify
from tests.conftest import tiny_recipe_table


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoos") / "parents"
    for _ in build(parse_recipe(tiny_recipe_table(name="parents"), "x"), folder):
        pass
    return Zoo.open(folder)


def grown(parents: Zoo, **changes: Any) -> Recipe:
    table = tiny_recipe_table(**{"name": "grown", "seed": 1, "twins": 4, **changes})
    del table["architecture"]
    recipe = parse_recipe({**table, "start_from": "parents"}, "x")
    return replace(recipe, ancestors_in=parents.path)


def made(recipe: Recipe, folder: Path) -> Zoo:
    for _ in build(recipe, folder):
        pass
    return Zoo.open(folder)


def test_twins_take_the_clean_models_in_turn(parents: Zoo, digits: ImageDataset) -> None:
    recipe = grown(parents, twins=6, test_share=0.4)
    ancestors = ancestors_of(recipe, digits.input_spec)
    assert [a.id for a in ancestors] == [e.id for e in parents.entries if not e.backdoored]
    specs = expand(recipe, digits.input_spec, ancestors=ancestors)
    assert [s.ancestor for s in specs] == [a.id for a in ancestors * 2 for _ in range(2)]
    assert all(s.architecture == parents.entries[0].spec.architecture for s in specs)
    # No ancestor has offspring in both splits, and there are both.
    sides = {(s.ancestor, s.split) for s in specs}
    assert len(sides) == len(ancestors)
    assert {split for _, split in sides} == {"train", "test"}


def test_training_begins_with_the_ancestors_weights(parents: Zoo, digits: ImageDataset) -> None:
    recipe = grown(parents, training={"batch_size": 32, "peak_learning_rate": 1e-12})
    (ancestor, *_) = ancestors_of(recipe, digits.input_spec)
    (spec, *_) = expand(recipe, digits.input_spec, ancestors=[ancestor])
    before = zoo_file.load(ancestor.path).weights()
    plan = StackPlan(size=2)
    alone = train_model(spec, digits, lambda _: ancestor.path.read_bytes())
    (stacked,) = train_models(
        [Seat(spec=spec, place=1)], digits, plan, lambda _: ancestor.path.read_bytes()
    )
    for trained in (alone, stacked):
        path = ancestor.path.parent.parent / "child.safetensors"
        path.write_bytes(trained.content)
        after = zoo_file.load(path).weights()
        learned = [name for name in before if "running" not in name]
        for name in learned:
            assert np.allclose(before[name], after[name], atol=1e-6), name
    other = next(e for e in parents.entries if e.id != ancestor.id)
    with pytest.raises(ZooError, match="not the model to start from"):
        train_model(spec, digits, lambda _: other.path.read_bytes())
    with pytest.raises(ZooError, match="not at hand"):
        train_model(spec, digits)


def test_a_grown_zoo_keeps_what_it_started_from(parents: Zoo, tmp_path: Path) -> None:
    recipe = grown(parents, twins=2)
    zoo = made(recipe, tmp_path / "grown")
    assert len(zoo.entries) == 4
    assert all(finding.problem is None for finding in verify(zoo.path, retrain=2))
    # The place of the ancestors is no part of the recipe: the zoo goes on from elsewhere.
    moved = parents.path.rename(parents.path.with_name("elsewhere"))
    try:
        again = made(replace(recipe, ancestors_in=moved), zoo.path)
        assert [e.id for e in again.entries] == [e.id for e in zoo.entries]
        with pytest.raises(ZooError, match="not a model zoo"):
            made(recipe, zoo.path)
    finally:
        moved.rename(parents.path)
    for kept in zoo.path.glob("*.ancestor"):
        kept.unlink()
    problems = [finding.problem for finding in verify(zoo.path, retrain=1)]
    assert sum("starts from is gone" in str(problem) for problem in problems) == 1


def test_what_can_not_be_started_from(parents: Zoo, tmp_path: Path, digits: ImageDataset) -> None:
    with pytest.raises(RecipeError, match="have their architectures"):
        parse_recipe({**tiny_recipe_table(), "start_from": "x"}, "x")
    stray = replace(parse_recipe(tiny_recipe_table(), "x"), ancestors_in=parents.path)
    with pytest.raises(RecipeError, match="start from nothing"):
        ancestors_of(stray, digits.input_spec)
    children = made(grown(parents, twins=2), tmp_path / "grown")
    with pytest.raises(RecipeError, match="not a model to start from"):
        ancestors_of(grown(children), digits.input_spec)
    with pytest.raises(RecipeError, match="not a model to start from"):
        ancestors_of(grown(parents, dataset={"name": "mnist"}), digits.input_spec)


def test_a_recipe_finds_its_ancestors_beside_it(parents: Zoo, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'name = "base"\ntwins = 2\n[dataset]\nname = "digits"\n[architecture]\nname = "lenet5"\n'
        '[attack]\nname = "patch"\nlabel_map = "untargeted"\n'
    )
    (tmp_path / "grown.toml").write_text('base = "base.toml"\nstart_from = "parents"\n')
    recipe = load_recipe(tmp_path / "grown.toml")
    assert recipe.ancestors_in == tmp_path / "parents"
    assert recipe.architectures == ()
    assert recipe.to_json()["start_from"] == "parents"


def test_several_zoos_are_read_as_one(parents: Zoo, tmp_path: Path) -> None:
    children = made(grown(parents, twins=12, test_share=0.0), tmp_path / "grown")
    both = Zoo.open(parents.path, children.path)
    assert [e.id for e in both.entries] == [e.id for e in (*parents.entries, *children.entries)]
    twins = [e.spec.twin for e in both.entries]
    assert all(twins.count(twin) == 2 for twin in set(twins))
    kin = {e.id: e.kin for e in both.entries}
    for entry in both.entries:
        if entry.spec.ancestor is not None:
            assert entry.kin == kin[entry.spec.ancestor]
    assert len(set(kin.values())) == 3
    assert {e.zoo for e in both.entries} == {"parents", "grown"}
    assert both.recipe["name"] == "parents + grown"
    assert named_zoos(both.recipe) == {("parents", "0"), ("grown", "1")}
    assert named_zoos(children.recipe) < named_zoos(both.recipe)
    assert named_zoos({"zoo": "grown", "zoo_seed": 1}) == named_zoos(children.recipe)


def test_kin_share_a_fold(parents: Zoo, tmp_path: Path) -> None:
    children = made(grown(parents, twins=6, test_share=0.0), tmp_path / "grown")
    # As many ancestors as folds need, each with its own offspring.
    entries = [
        replace(e, line=10 * i + e.kin, id=f"{i}{e.id}")
        for i in range(10)
        for e in children.entries
    ]
    folds, _ = assign_folds(entries, 0)
    for number in {e.kin for e in entries}:
        own = {int(f) for f, e in zip(folds, entries, strict=True) if e.kin == number}
        assert len(own) == 1


def test_zoos_that_can_not_be_one(parents: Zoo, small_zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="share models"):
        Zoo.open(parents.path, parents.path)
    other = made(
        parse_recipe(tiny_recipe_table(name="mine", dataset={"name": "digits"}), "x"),
        tmp_path / "other",
    )
    assert Zoo.open(small_zoo.path, other.path).input_spec == small_zoo.input_spec
    with pytest.raises(LitmusError, match="not a model zoo"):
        Zoo.open(parents.path, tmp_path)
