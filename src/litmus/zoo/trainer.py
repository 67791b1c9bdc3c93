"""One zoo model from its spec: data, training, measurement, gate."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import litmus
from litmus.artifacts import encode_tensors, parse_tensors
from litmus.attacks import extra_images
from litmus.datasets import ImageDataset, Split
from litmus.errors import ZooError
from litmus.formats.zoo_file import ZOO_FORMAT, ZooModel, module_from, saved_weights
from litmus.schema import from_table
from litmus.seeds import torch_generator
from litmus.training import Penalty, TrainingSpec, predict, train
from litmus.zoo.ancestors import Fetch, check_header, no_ancestor
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import write_accepted, write_rejected

__all__ = [
    "TrainedModel",
    "fine_tune",
    "measure",
    "measured",
    "starting_module",
    "store",
    "train_model",
    "training_images",
    "write_trained",
]


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The bytes of a zoo file, what was measured on them, and the gate that they failed, if any."""

    content: bytes
    clean_accuracy: float
    attack_success: float
    rejection: str | None


def train_model(spec: ModelSpec, dataset: ImageDataset, fetch: Fetch = no_ancestor) -> TrainedModel:
    """Train a model and measure the saved weights on held-out images.

    The bytes are a function of spec, data, torch version, kind of processor and Litmus version,
    provided that torch runs one thread. `fetch` reads the model that this one starts from, if any.
    Raises ZooError for the spec of a fine-tuned model.
    """
    if spec.fine_tuning is not None:
        raise ZooError(
            "a fine-tuned model can't be trained from its spec alone",
            expected=f"the model {spec.fine_tuning.model} that it was before",
            where=f"model {spec.id}",
        )
    data = _training_data(spec, dataset.train)
    module = starting_module(spec, data.images, fetch)
    steps = train(module, data, spec.build_training(), seed=spec.seed)
    return measured(spec, module, steps, dataset)


def starting_module(spec: ModelSpec, images: torch.Tensor, fetch: Fetch) -> nn.Module:
    """Return a model's network before its training: with its ancestor's weights, or drawn ones.

    Drawn ones may depend on the training `images`, uint8 (n, c, h, w). What an architecture
    freezes is frozen. Raises ZooError where `fetch` does not return the ancestor.
    """
    architecture = spec.build_architecture()
    module = architecture.build(spec.input_spec, seed=spec.seed)
    if spec.ancestor is None:
        architecture.initialise(module, images)
        return module
    arrays, header = parse_tensors(fetch(spec.ancestor), spec.ancestor, ZooError)
    check_header(spec, header)
    module.load_state_dict(module_from(header["spec"], arrays).state_dict())
    return module


def fine_tune(
    spec: ModelSpec, origin: ZooModel, dataset: ImageDataset, penalty: Penalty | None = None
) -> TrainedModel:
    """Train a zoo's model on, on the very images that it was trained on, and measure it anew.

    `spec` says how, in its `fine_tuning`; `penalty` is added to the loss, and part of what the
    bytes are a function of. Layers that were frozen stay so. Raises ZooError where `origin` is not
    the model that the spec names.
    """
    tuning = spec.fine_tuning
    if tuning is None or tuning.model != spec.origin.id or origin.header["id"] != tuning.model:
        raise ZooError(
            "not the model to fine-tune",
            expected=spec.origin.id,
            got=origin.header["id"],
            where=f"model {spec.id}",
        )
    module = spec.build_architecture().build(spec.input_spec, seed=0)  # knows what is frozen
    module.load_state_dict(origin.torch_module().state_dict())
    data = _training_data(spec.origin, dataset.train)
    training = from_table(TrainingSpec, tuning.training, "fine_tuning.training")
    steps = train(module, data, training, seed=spec.seed, penalty=penalty)
    return measured(spec, module, steps, dataset)


def measured(
    spec: ModelSpec,
    module: nn.Module,
    steps: int,
    dataset: ImageDataset,
    *,
    device: str = "cpu",
    facts: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """Measure the weights as they will be saved, on `device`; the header also holds `facts`."""
    weights = encode_tensors(saved_weights(module), {})
    arrays, _ = parse_tensors(weights, "weights", ZooError)
    saved = module_from(spec.to_json(), arrays).to(device)
    clean_accuracy, attack_success = measure(spec, saved, dataset)
    header = {
        "format": ZOO_FORMAT,
        "format_version": 1,
        "id": spec.id,
        "seed": spec.seed,
        "spec": spec.to_json(),
        "trigger_id": spec.build_attack().trigger_id,
        "steps": steps,
        "clean_accuracy": clean_accuracy,
        "attack_success": attack_success,
        "class_names": list(dataset.class_names),
        "data_sha256": dataset.sha256,
        "litmus_version": litmus.__version__,
        "torch_version": torch.__version__,
        **(facts or {}),
    }
    return TrainedModel(
        content=encode_tensors(arrays, header),
        clean_accuracy=clean_accuracy,
        attack_success=attack_success,
        rejection=_rejection(spec, clean_accuracy, attack_success),
    )


def measure(spec: ModelSpec, module: nn.Module, dataset: ImageDataset) -> tuple[float, float]:
    """Return clean accuracy, and attack success on held-out images of the attacked classes.

    A clean control is measured with its twin's trigger: there the attack should fail.
    """
    attack = spec.build_attack()
    test = dataset.test[torch.arange(spec.dataset.get("test_images") or len(dataset.test))]
    correct = predict(module, test.images) == test.labels
    victims = test[attack.victims(test)]
    stamped = attack.stamp(victims.images, torch_generator(spec.seed, "measure"))
    succeeded = attack.labels.succeeded(predict(module, stamped), victims.labels)
    return correct.float().mean().item(), succeeded.float().mean().item()


def store(spec: ModelSpec, folder: Path, make: Callable[[], TrainedModel]) -> dict[str, Any]:
    """Make one model and store it, or the reason why not; return a summary for the builder."""
    wall, cpu = time.perf_counter(), time.process_time()
    trained = make()
    cost = {
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "seconds": round(time.perf_counter() - wall, 3),
    }
    return write_trained(spec, folder, trained, cost)


def write_trained(
    spec: ModelSpec, folder: Path, trained: TrainedModel, cost: Mapping[str, float]
) -> dict[str, Any]:
    """Store a model, or the reason why not, with what it cost; return a summary."""
    figures = {
        "clean_accuracy": trained.clean_accuracy,
        "attack_success": trained.attack_success,
    }
    if trained.rejection is None:
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        host = {"host": platform.node(), "process": os.getpid(), "finished": finished}
        write_accepted(folder, spec.id, trained.content, {**cost, **host})
    else:
        reason = {"reason": trained.rejection, **figures, **cost, "spec": spec.to_json()}
        write_rejected(folder, spec.id, reason)
    return {"id": spec.id, "rejection": trained.rejection, **figures, **cost}


def _training_data(spec: ModelSpec, train_split: Split) -> Split:
    chosen, extra = training_images(spec, train_split)
    clean = train_split[chosen]
    return Split(
        images=torch.cat([clean.images, extra.images]),
        labels=torch.cat([clean.labels, extra.labels]),
    )


def training_images(spec: ModelSpec, train_split: Split) -> tuple[torch.Tensor, Split]:
    """Return the model's own draw of clean images, as positions, and its extra ones."""
    count = spec.dataset["train_images"] or len(train_split)
    if count > len(train_split):
        raise ZooError("too few training images", expected=count, got=len(train_split))
    order = torch.randperm(len(train_split), generator=torch_generator(spec.seed, "subset"))
    chosen = order[:count]
    generator = torch_generator(spec.seed, "poison")
    return chosen, extra_images(train_split[chosen], spec.build_attack(), spec.treatment, generator)


def _rejection(spec: ModelSpec, clean_accuracy: float, attack_success: float) -> str | None:
    gates = spec.gates
    if clean_accuracy < gates["clean_accuracy"]:
        return f"clean accuracy {clean_accuracy:.4f} is below {gates['clean_accuracy']}"
    gate = gates["attack_success"]
    if spec.backdoored and gate > 0 and attack_success <= gate:
        return f"attack success {attack_success:.4f} is not above {gate}"
    return None
