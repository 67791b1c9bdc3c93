from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from litmus.artifacts import parse_tensors
from litmus.datasets import ImageDataset
from litmus.errors import UsageError, ZooError
from litmus.stacked_training import StackSettings
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stacks import (
    ONE_AT_A_TIME,
    StackPlan,
    build_models,
    fastest_plan,
    read_plan,
    stacks,
    train_models,
    write_plan,
)
from litmus.zoo.store import finished_ids, read_entry, write_recipe_table
from litmus.zoo.trainer import TrainedModel, train_model

THREE = StackPlan(size=3)


@pytest.fixture(scope="module")
def specs(digits: ImageDataset) -> list[ModelSpec]:
    from tests.conftest import tiny_recipe_table

    table = tiny_recipe_table(dataset={"name": "digits", "train_images": 200})
    return expand(parse_recipe(table, "tiny"), digits.input_spec)


def weights(trained: TrainedModel) -> dict[str, torch.Tensor]:
    arrays, _ = parse_tensors(trained.content, "model", ZooError)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_stacked_models_are_those_that_are_trained_alone(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    together = train_models(specs[:3], digits, THREE)
    for spec, trained in zip(specs, together, strict=False):
        alone = train_model(spec, digits)
        for name, tensor in weights(alone).items():
            assert torch.allclose(weights(trained)[name], tensor, atol=1e-3), name
        header = parse_tensors(trained.content, "model", ZooError)[1]
        assert header.pop("stack")["size"] == 3
        kept = ("clean_accuracy", "attack_success", "tensors_sha256")
        other = parse_tensors(alone.content, "model", ZooError)[1]
        assert {k: v for k, v in header.items() if k not in kept} == {
            k: v for k, v in other.items() if k not in kept
        }


def test_bytes_do_not_depend_on_who_else_is_in_the_stack(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    wide = [replace(s, architecture={**s.architecture, "width": 16}) for s in specs]
    first = train_models(wide[:3], digits, THREE)[1].content
    assert train_models([wide[1]], digits, THREE)[0].content == first
    assert train_models([wide[4], wide[1]], digits, THREE)[1].content == first


def test_one_at_a_time_is_the_training_that_zoos_were_made_with(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    assert train_models(specs[:1], digits)[0].content == train_model(specs[0], digits).content


def test_only_like_models_go_together(specs: list[ModelSpec], digits: ImageDataset) -> None:
    other = replace(specs[1], training={**specs[1].training, "batch_size": 16})
    groups = stacks([specs[0], other, *specs[2:6]], 2)
    assert groups == [[specs[0], specs[2]], [other], [specs[3], specs[4]], [specs[5]]]
    with pytest.raises(UsageError, match="can't be a stack"):
        train_models([specs[0], other], digits, THREE)
    with pytest.raises(UsageError, match="can't be a stack"):
        train_models(specs[:4], digits, THREE)


def test_a_stack_is_stored_model_by_model(
    specs: list[ModelSpec], digits: ImageDataset, tmp_path: Path
) -> None:
    strict = replace(specs[1], gates={"clean_accuracy": 1.0, "attack_success": 0})
    replies = build_models([specs[0], strict], digits, tmp_path, StackPlan(size=2))
    assert [bool(reply["rejection"]) for reply in replies] == [False, True]
    assert finished_ids(tmp_path) == ({specs[0].id}, {strict.id})
    assert read_entry(tmp_path / f"{specs[0].id}.safetensors").spec == specs[0]


def test_a_zoo_keeps_its_plan(tmp_path: Path) -> None:
    write_recipe_table(tmp_path, {"name": "tiny"})
    before = (tmp_path / "zoo.json").read_bytes()
    write_plan(tmp_path, ONE_AT_A_TIME)
    assert (tmp_path / "zoo.json").read_bytes() == before
    plan = StackPlan(size=8, settings=StackSettings(device="cuda", precision="bf16"))
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    assert json.loads((tmp_path / "zoo.json").read_text())["recipe"] == {"name": "tiny"}
    write_recipe_table(tmp_path, {"name": "tiny"})
    assert read_plan(tmp_path) == plan
    with pytest.raises(ZooError, match="another stack size"):
        write_plan(tmp_path, THREE)


def test_a_zoo_that_was_begun_one_at_a_time_stays_so(tmp_path: Path) -> None:
    write_recipe_table(tmp_path, {"name": "tiny"})
    (tmp_path / "0123.safetensors").touch()
    with pytest.raises(ZooError, match="another stack size"):
        write_plan(tmp_path, THREE)


def test_the_fastest_plan_is_one_that_was_measured(
    specs: list[ModelSpec], digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastest_plan(specs[0], digits, StackSettings(), sizes=(1, 2)).size in (1, 2)
    seconds = {1: 1.0, 2: 0.9, 4: 0.7, 8: 0.68}

    def known(spec: ModelSpec, dataset: ImageDataset, plan: StackPlan) -> float:
        return seconds[plan.size]

    monkeypatch.setattr("litmus.zoo.stacks.seconds_per_step", known)
    assert fastest_plan(specs[0], digits, StackSettings(), sizes=(1, 2, 4, 8)).size == 4
