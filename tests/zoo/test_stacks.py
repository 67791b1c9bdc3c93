from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from litmus.artifacts import encode_tensors, parse_tensors
from litmus.datasets import ImageDataset
from litmus.errors import UsageError, ZooError
from litmus.stacked_training import StackSettings
from litmus.zoo.expansion import expand
from litmus.zoo.groups import Seat, seats
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import (
    build_models,
    commonest,
    fastest_plan,
    stackable,
    step_seconds,
    train_again,
    train_models,
)
from litmus.zoo.store import finished_ids, read_entry
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
    together = train_models(seats(specs[:3], 3), digits, THREE)
    for spec, trained in zip(specs, together, strict=False):
        alone = train_model(spec, digits)
        for name, tensor in weights(alone).items():
            assert torch.allclose(weights(trained)[name], tensor, atol=1e-3), name
        header = parse_tensors(trained.content, "model", ZooError)[1]
        facts = header.pop("stack")
        assert (facts["size"], facts["place"]) == (3, specs.index(spec))
        kept = ("clean_accuracy", "attack_success", "tensors_sha256")
        other = parse_tensors(alone.content, "model", ZooError)[1]
        assert {k: v for k, v in header.items() if k not in kept} == {
            k: v for k, v in other.items() if k not in kept
        }


@pytest.mark.parametrize("width", [2, 16])
def test_bytes_do_not_depend_on_who_else_is_in_the_stack(
    specs: list[ModelSpec], digits: ImageDataset, width: int
) -> None:
    wide = [replace(s, architecture={**s.architecture, "width": width}) for s in specs]
    first, second, _, fourth, *_ = seats(wide, 3)
    content = train_models(seats(wide, 3)[:3], digits, THREE)[1].content
    assert train_models([second], digits, THREE)[0].content == content
    assert train_models([second, fourth], digits, THREE)[0].content == content
    assert first.place == fourth.place


def test_one_at_a_time_is_the_training_that_zoos_were_made_with(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    alone = train_model(specs[0], digits).content
    assert train_models(seats(specs[:1], 1), digits)[0].content == alone


def test_only_like_models_at_different_places_go_together(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    other = replace(specs[1], training={**specs[1].training, "batch_size": 16})
    for group in (
        [Seat(spec=specs[0]), Seat(spec=other, place=1)],
        [Seat(spec=specs[0]), Seat(spec=specs[1])],
        seats(specs, 4)[:4],
    ):
        with pytest.raises(UsageError, match="can't be a stack"):
            train_models(group, digits, THREE)


def test_batches_that_an_attack_makes_larger_are_not_stacked(
    specs: list[ModelSpec], digits: ImageDataset
) -> None:
    few = [replace(s, dataset={**s.dataset, "train_images": 31}) for s in specs[:2]]
    assert stackable(specs[0], digits)
    assert not stackable(few[0], digits)
    trained = train_models(seats(few, 3), digits, THREE)
    assert trained == [train_model(spec, digits) for spec in few]


def test_a_stack_is_stored_model_by_model_and_each_is_trained_again_at_its_place(
    specs: list[ModelSpec], digits: ImageDataset, tmp_path: Path
) -> None:
    strict = replace(specs[1], gates={"clean_accuracy": 1.0, "attack_success": 0})
    group = seats([specs[0], strict, specs[2]], 3)
    replies = build_models(group, digits, tmp_path, THREE)
    assert [reply["id"] for reply in replies] == [specs[0].id, strict.id, specs[2].id]
    assert [bool(reply["rejection"]) for reply in replies] == [False, True, False]
    assert finished_ids(tmp_path) == ({specs[0].id, specs[2].id}, {strict.id})
    entry = read_entry(tmp_path / f"{specs[2].id}.safetensors")
    assert entry.spec == specs[2]
    assert train_again(entry, digits).content == entry.path.read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_gpus_model_is_not_trained_again(
    specs: list[ModelSpec], digits: ImageDataset, tmp_path: Path
) -> None:
    arrays, header = parse_tensors(train_model(specs[0], digits).content, "model", ZooError)
    header["stack"] = {"size": 8, "device": "cuda", "precision": "bf16", "place": 0}
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_tensors(arrays, header))
    with pytest.raises(ZooError, match="trained on a GPU, and there is none"):
        train_again(read_entry(path), digits)


def test_what_stacks_cost_is_measured(specs: list[ModelSpec], digits: ImageDataset) -> None:
    seconds = step_seconds(specs[0], digits, StackSettings(), sizes=(1, 2))
    assert seconds.keys() == {1, 2}
    assert min(seconds.values()) > 0
    few = replace(specs[0], dataset={**specs[0].dataset, "train_images": 31})
    assert step_seconds(few, digits, StackSettings()) == {}


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        ({1: 1.0, 2: 0.9}, 1),  # not clearly faster
        ({1: 1.0, 2: 0.7, 3: 0.68}, 2),
        ({1: 1.0, 2: 0.7, 3: 0.4}, 3),
        ({1: 1.0, 8: 0.7}, 1),  # six models: a quarter of the stack would be copies
        ({1: 1.0, 8: 0.5}, 8),
        ({}, 1),
    ],
)
def test_the_fastest_plan_is_that_of_the_whole_zoo(
    specs: list[ModelSpec], seconds: dict[int, float], size: int
) -> None:
    assert fastest_plan(specs, StackSettings(), seconds) == StackPlan(size=size)


def test_stacks_do_not_pay_where_no_two_models_are_alike(specs: list[ModelSpec]) -> None:
    different = [
        replace(spec, architecture={**spec.architecture, "width": 2 + number // 2})
        for number, spec in enumerate(specs)
    ]
    assert fastest_plan(different, StackSettings(), {1: 1.0, 4: 0.6}).size == 1
    assert fastest_plan(different, StackSettings(), {1: 1.0, 2: 0.6}).size == 2
    assert commonest([different[0], *different[2:4]]) == different[2]
