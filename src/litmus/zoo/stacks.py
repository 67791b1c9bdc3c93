"""Zoo models trained several at a time: which go together, how many, and what is stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from litmus.architectures.stacking import Stack
from litmus.artifacts import canonical_json, write_atomically
from litmus.datasets import ImageDataset, Split
from litmus.errors import UsageError, ZooError
from litmus.stacked_training import PLAIN, StackedData, StackSettings, train_stacked
from litmus.training import train
from litmus.zoo.spec import ModelSpec
from litmus.zoo.trainer import (
    TrainedModel,
    measured,
    train_model,
    training_images,
    write_trained,
)

__all__ = [
    "ONE_AT_A_TIME",
    "StackPlan",
    "build_models",
    "fastest_plan",
    "read_plan",
    "stacks",
    "train_models",
    "write_plan",
]

_SIZES: Final = {"cpu": (1, 2, 4, 8), "cuda": (1, 8, 32, 64, 128)}
_STEPS: Final = 4
"""Timed steps of a measurement; one more goes before them."""
_CLEARLY: Final = 1.2
"""A larger stack must be so many times faster: a measurement's noise shall not choose."""
_KEY: Final = "stack"


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """G, the models that are trained at a time, and how; kept in `zoo.json` for a whole zoo.

    A size of 1 on the CPU is training by `litmus.zoo.trainer.train_model`.
    """

    size: int = 1
    settings: StackSettings = PLAIN

    @property
    def single(self) -> bool:
        """Whether models are trained one at a time, on the CPU."""
        return self.size == 1 and self.settings == PLAIN


ONE_AT_A_TIME: Final = StackPlan()


def stacks(specs: Iterable[ModelSpec], size: int) -> list[list[ModelSpec]]:
    """Return the specs in groups of at most `size` that can be trained together, in their order.

    They agree on architecture, shape, training and data, and so on the size of a batch.
    """
    open_groups: dict[str, list[ModelSpec]] = {}
    groups: list[list[ModelSpec]] = []
    for spec in specs:
        key = _kind(spec)
        group = open_groups.get(key)
        if group is None or len(group) == size:
            group = open_groups[key] = []
            groups.append(group)
        group.append(spec)
    return groups


def _kind(spec: ModelSpec) -> str:
    parts = (spec.architecture, asdict(spec.input_spec), spec.training, spec.dataset)
    return canonical_json(list(parts))


def train_models(
    specs: Sequence[ModelSpec], dataset: ImageDataset, plan: StackPlan = ONE_AT_A_TIME
) -> list[TrainedModel]:
    """Train models of one architecture, training and data set; see `stacks`.

    The stack always has the plan's size, its last model repeated where there are too few, so that
    a model's bytes do not depend on which others were left to train (on the CPU: where all its
    layers' channels come in multiples of 16, as vectors do). Layers that can't be stacked
    are trained one model at a time. Raises UsageError for more specs than the plan's size.
    """
    if plan.single:
        return [train_model(spec, dataset) for spec in specs]
    if len(specs) > plan.size or len(set(map(_kind, specs))) != 1:
        raise UsageError("these models can't be a stack", expected=plan.size, got=len(specs))
    tuned = [spec.id for spec in specs if spec.fine_tuning is not None]
    if tuned:
        raise ZooError("a fine-tuned model can't be trained from its spec alone", got=tuned[0])
    if not _stackable(specs[0]):
        return [train_model(spec, dataset) for spec in specs]
    data = _shared_images(specs, dataset)
    padded = [*range(len(specs)), *[len(specs) - 1] * (plan.size - len(specs))]
    modules = []
    for place in padded:
        architecture = specs[place].build_architecture()
        module = architecture.build(specs[place].input_spec, seed=specs[place].seed)
        architecture.initialise(module, data.images[data.positions[place]])
        modules.append(module)
    steps = train_stacked(
        modules,
        replace(
            data,
            positions=[data.positions[place] for place in padded],
            labels=[data.labels[place] for place in padded],
        ),
        specs[0].build_training(),
        seeds=[specs[place].seed for place in padded],
        settings=plan.settings,
    )
    device, facts = plan.settings.device, {_KEY: _to_json(plan)}
    return [
        measured(spec, modules[place], steps[place], dataset, device=device, facts=facts)
        for place, spec in enumerate(specs)
    ]


def _stackable(spec: ModelSpec) -> bool:
    try:
        Stack([spec.build_architecture().build(spec.input_spec, seed=0)])
    except UsageError:
        return False
    return True


def _shared_images(specs: Sequence[ModelSpec], dataset: ImageDataset) -> StackedData:
    """The training split once, and each model's extra images behind it."""
    images, positions, labels = [dataset.train.images], [], []
    end = len(dataset.train)
    for spec in specs:
        chosen, extra = training_images(spec, dataset.train)
        positions.append(torch.cat([chosen, torch.arange(end, end + len(extra))]))
        labels.append(torch.cat([dataset.train.labels[chosen], extra.labels]))
        images.append(extra.images)
        end += len(extra)
    return StackedData(images=torch.cat(images), positions=positions, labels=labels)


def build_models(
    specs: Sequence[ModelSpec], dataset: ImageDataset, folder: Path, plan: StackPlan
) -> list[dict[str, Any]]:
    """Train a stack and store its models, or the reasons why not; return a summary of each.

    Each is charged its equal share of the seconds.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    trained = train_models(specs, dataset, plan)
    cost = {
        "cpu_seconds": round((time.process_time() - cpu) / len(specs), 3),
        "seconds": round((time.perf_counter() - wall) / len(specs), 3),
    }
    return [write_trained(spec, folder, t, cost) for spec, t in zip(specs, trained, strict=True)]


def fastest_plan(
    spec: ModelSpec, dataset: ImageDataset, settings: StackSettings, sizes: Sequence[int] = ()
) -> StackPlan:
    """Measure a few steps at each size on models like `spec`, and return the fastest plan.

    A larger stack is taken where it is clearly faster than the best smaller one; sizes end where a
    GPU's memory does. On the CPU, 1 is the training of single models.
    """
    device = torch.device(settings.device).type
    best, best_time = StackPlan(size=1, settings=settings), float("inf")
    for size in sizes or _SIZES[device]:
        plan = StackPlan(size=size, settings=settings)
        try:
            seconds = seconds_per_step(spec, dataset, plan)
        except torch.cuda.OutOfMemoryError:
            break
        if seconds * (_CLEARLY if size > 1 else 1) < best_time:
            best, best_time = plan, seconds
    return best


def seconds_per_step(spec: ModelSpec, dataset: ImageDataset, plan: StackPlan) -> float:
    """Return the seconds that a model's step takes in a stack of the plan's size."""
    training = spec.build_training()
    architecture = spec.build_architecture()
    size = min(training.batch_size, len(dataset.train))
    few = torch.arange(size).repeat(_STEPS + 1)
    times = []
    # A GPU's seconds are the wall's; on the CPU, others may be at work.
    clock = time.process_time if plan.settings.device == "cpu" else time.perf_counter
    for steps in (1, 1, _STEPS + 1):  # the first one warms up
        modules = [architecture.build(spec.input_spec, seed=seed) for seed in range(plan.size)]
        rows = few[: steps * size]
        data = StackedData(
            images=dataset.train.images[:size],
            positions=[rows] * plan.size,
            labels=[dataset.train.labels[rows]] * plan.size,
        )
        once = replace(training, epochs=1, stop=None)
        start = clock()
        if plan.single:
            train(modules[0], Split(images=data.images[rows], labels=data.labels[0]), once, seed=0)
        else:
            train_stacked(modules, data, once, seeds=range(plan.size), settings=plan.settings)
        times.append(clock() - start)
    return (times[2] - times[1]) / _STEPS / plan.size


def write_plan(folder: Path, plan: StackPlan) -> None:
    """Keep a plan in a zoo's `zoo.json`; one model at a time leaves the file as it is.

    Raises ZooError where the zoo was begun with another plan.
    """
    present = read_plan(folder)
    if present == plan:
        return
    path = folder / "zoo.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if _KEY in content or any(folder.glob("*.safetensors")):
        raise ZooError(
            "the zoo was begun with another stack size", expected=present, got=plan, where=path
        )
    write_atomically(path, json.dumps({**content, _KEY: _to_json(plan)}, indent=1))


def read_plan(folder: Path) -> StackPlan:
    """Return the plan in a zoo's `zoo.json`, by default one model at a time."""
    path = folder / "zoo.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8")).get(_KEY)
        if table is None:
            return ONE_AT_A_TIME
        return StackPlan(
            size=table["size"],
            settings=StackSettings(**{k: v for k, v in table.items() if k != "size"}),
        )
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ZooError(f"damaged: {fault}", where=path) from fault


def _to_json(plan: StackPlan) -> dict[str, Any]:
    return {"size": plan.size, **asdict(plan.settings)}
