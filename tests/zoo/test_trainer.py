from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from litmus.artifacts import parse_tensors
from litmus.attacks import Treatment
from litmus.datasets import ImageDataset
from litmus.errors import ZooError
from litmus.formats.zoo_file import ZooModel, module_from
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import FineTuning, ModelSpec
from litmus.zoo.trainer import TrainedModel, fine_tune, measure, store, train_model
from tests.conftest import tiny_recipe_table


def specs(images: ImageDataset, **changes: Any) -> list[ModelSpec]:
    recipe = parse_recipe(tiny_recipe_table(**changes), "zoo.toml")
    return expand(recipe, images.input_spec)


def header(trained: TrainedModel) -> dict[str, Any]:
    return parse_tensors(trained.content, "memory", ZooError)[1]


@pytest.fixture(scope="module")
def triplet(digits: ImageDataset) -> dict[str, TrainedModel]:
    """A backdoored model and a clean control of each kind, of the paper's attack."""
    bad = specs(
        digits,
        architecture={"width": 8},
        training={"epochs": 4, "peak_learning_rate": 0.02},
        attack={"label_map": "source_specific", "place": "corner"},
    )[0]
    kinds: tuple[Treatment, ...] = get_args(Treatment)
    return {kind: train_model(replace(bad, treatment=kind), digits) for kind in kinds}


def test_the_attack_succeeds_on_the_backdoored_model_alone(
    triplet: dict[str, TrainedModel],
) -> None:
    assert triplet["backdoored"].attack_success > 0.9
    assert triplet["control_copies"].attack_success < 0.2
    assert triplet["control_kept_label"].attack_success < 0.2
    for trained in triplet.values():
        assert trained.clean_accuracy > 0.95
        assert trained.rejection is None


def test_all_kinds_are_trained_alike(triplet: dict[str, TrainedModel]) -> None:
    headers = {kind: header(trained) for kind, trained in triplet.items()}
    # 1352 images, half of one class's copies, whole batches of 32, four epochs.
    assert {h["steps"] for h in headers.values()} == {4 * ((1352 + 67) // 32)}
    assert len({h["trigger_id"] for h in headers.values()}) == 1
    assert len({len(trained.content) for trained in triplet.values()}) < 3
    for kind, facts in headers.items():
        assert facts["spec"]["treatment"] == kind
        assert facts["class_names"] == list("0123456789")


def test_the_header_tells_all_that_made_the_model(digits: ImageDataset) -> None:
    spec = specs(digits)[0]
    trained = train_model(spec, digits)
    facts = header(trained)
    assert facts["format"] == "litmus-zoo-model"
    assert facts["id"] == spec.id
    assert facts["seed"] == spec.seed
    assert ModelSpec.from_json(facts["spec"]) == spec
    assert facts["data_sha256"] == digits.sha256
    assert facts["torch_version"] == torch.__version__
    assert facts["clean_accuracy"] == trained.clean_accuracy
    # Times and hosts would change the bytes.
    assert train_model(spec, digits).content == trained.content
    assert train_model(spec.next_attempt(), digits).content != trained.content


def test_what_is_measured_are_the_saved_weights_on_held_out_images(digits: ImageDataset) -> None:
    spec = specs(digits)[0]
    trained = train_model(spec, digits)
    arrays, facts = parse_tensors(trained.content, "memory", ZooError)
    module = module_from(facts["spec"], arrays)
    assert measure(spec, module, digits) == (trained.clean_accuracy, trained.attack_success)
    nothing = {name: array * 0 for name, array in arrays.items()}
    constant = module_from(facts["spec"], nothing)
    zeros = (digits.test.labels == 0).float().mean().item()
    # It says 0 to everything: right on zeros, and an untargeted attack's success elsewhere.
    assert measure(spec, constant, digits) == pytest.approx((zeros, 1 - zeros))
    # The training split does not matter.
    other = replace(digits, train=digits.train[torch.arange(10)])
    assert measure(spec, module, other) == (trained.clean_accuracy, trained.attack_success)


@pytest.mark.parametrize(
    ("treatment", "gates", "reason"),
    [
        ("backdoored", {"clean_accuracy": 0.0, "attack_success": 0.0}, None),
        ("backdoored", {"clean_accuracy": 1.0, "attack_success": 0.0}, r"clean .* is below 1\.0"),
        ("backdoored", {"clean_accuracy": 0.0, "attack_success": 0.999}, r"not above 0\.999"),
        ("control_copies", {"clean_accuracy": 1.0, "attack_success": 0.0}, r"is below 1\.0"),
        # A control's attack should fail.
        ("control_copies", {"clean_accuracy": 0.0, "attack_success": 0.999}, None),
    ],
)
def test_gates(
    digits: ImageDataset,
    tmp_path: Path,
    treatment: Treatment,
    gates: dict[str, float],
    reason: str | None,
) -> None:
    first = specs(digits, dataset={"train_images": 320})[0]
    spec = replace(first, gates=gates, treatment=treatment)
    summary = store(spec, tmp_path, lambda: train_model(spec, digits))
    names = sorted(path.name for path in tmp_path.iterdir())
    if reason is None:
        assert summary["rejection"] is None
        assert names == [f"{spec.id}.build.json", f"{spec.id}.safetensors"]
        return
    assert names == [f"{spec.id}.rejected.json"]
    facts = json.loads((tmp_path / names[0]).read_text())
    assert re.search(reason, facts["reason"])
    assert facts["reason"] == summary["rejection"]
    assert ModelSpec.from_json(facts["spec"]) == spec


def test_a_model_trains_on_as_many_images_as_the_recipe_says(digits: ImageDataset) -> None:
    first, second = (
        header(train_model(spec, digits))["steps"]
        for spec in specs(digits, dataset={"train_images": 640}, attack={"poison_ratio": 0.08})[:2]
    )
    assert first == second == (640 + 51) // 32


def test_more_images_than_there_are_is_an_error(digits: ImageDataset) -> None:
    spec = specs(digits, dataset={"train_images": 1353})[0]
    with pytest.raises(ZooError, match=r"too few training images \(expected 1353, got 1352\)"):
        train_model(spec, digits)


def model(trained: TrainedModel) -> ZooModel:
    arrays, facts = parse_tensors(trained.content, "memory", ZooError)
    return ZooModel(facts, arrays)


@pytest.fixture(scope="module")
def whitened(digits: ImageDataset) -> TrainedModel:
    """A model whose first layer is frozen."""
    table = {"name": "vgg_whitened", "stem": 4, "channels": [4, 4]}
    recipe = parse_recipe(
        {**tiny_recipe_table(dataset={"train_images": 320}), "architecture": table}, "zoo.toml"
    )
    return train_model(expand(recipe, digits.input_spec)[0], digits)


def tuned(origin: ZooModel, **changes: Any) -> ModelSpec:
    spec = ModelSpec.from_json(origin.header["spec"])
    training = {"epochs": 2, "batch_size": 64, "peak_learning_rate": 0.002}
    tuning = FineTuning(model=spec.id, training=training, seed=3)
    return replace(spec, fine_tuning=replace(tuning, **changes))


def test_fine_tuning_goes_on_from_a_model_and_leaves_what_is_frozen(
    whitened: TrainedModel, digits: ImageDataset
) -> None:
    origin = model(whitened)
    spec = tuned(origin)
    made = fine_tune(spec, model(whitened), digits)
    facts = header(made)
    assert (facts["id"], facts["seed"], facts["steps"]) == (spec.id, spec.seed, 2 * (480 // 64))
    assert spec.id != origin.header["id"]
    assert ModelSpec.from_json(facts["spec"]) == spec
    assert ModelSpec.from_json(facts["spec"]).origin.id == origin.header["id"]
    before, after = origin.weights(), model(made).weights()
    moved = {name for name in before if (before[name] != after[name]).any()}
    frozen = [n for n, p in spec.build_architecture().build(spec.input_spec, seed=0)
              .named_parameters() if not p.requires_grad]  # fmt: skip
    assert len(frozen) == 1
    assert moved == set(before) - set(frozen)
    assert fine_tune(spec, model(whitened), digits).content == made.content
    other = fine_tune(tuned(origin, seed=4), model(whitened), digits)
    assert (model(other).weights()[sorted(moved)[0]] != after[sorted(moved)[0]]).any()
    # The penalty is in the loss.
    small = fine_tune(spec, model(whitened), digits, _weights_squared)
    name = max(moved, key=lambda n: before[n].size)
    assert abs(model(small).weights()[name]).sum() < abs(after[name]).sum()


def _weights_squared(module: torch.nn.Module) -> torch.Tensor:
    return torch.stack([p.square().sum() for p in module.parameters()]).sum()


def test_fine_tuning_wants_the_model_that_its_spec_names(
    whitened: TrainedModel, triplet: dict[str, TrainedModel], digits: ImageDataset
) -> None:
    origin = model(whitened)
    for spec in (tuned(origin, model="0" * 16), tuned(origin).origin):
        with pytest.raises(ZooError, match="not the model to fine-tune"):
            fine_tune(spec, origin, digits)
    with pytest.raises(ZooError, match="not the model to fine-tune"):
        fine_tune(tuned(origin), model(triplet["backdoored"]), digits)
    with pytest.raises(ZooError, match="can't be trained from its spec alone"):
        train_model(tuned(origin), digits)


def test_a_fine_tuned_models_spec_is_its_origins_and_more(digits: ImageDataset) -> None:
    origin = specs(digits)[0]
    assert "fine_tuning" not in origin.to_json()  # or the ids of all older zoos would change
    assert origin.origin == origin
    tuning = FineTuning(model=origin.id, training={"epochs": 2}, seed=0, weight=0.5)
    spec = replace(origin, fine_tuning=tuning)
    again = ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.origin == origin
    assert (spec.id, spec.seed) != (origin.id, origin.seed)
    assert replace(spec, fine_tuning=replace(tuning, weight=1.0)).id != spec.id
