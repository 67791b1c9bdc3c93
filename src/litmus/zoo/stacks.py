"""Zoo models trained several at a time: how fast that is, and what is stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from litmus.architectures.stacking import Stack
from litmus.artifacts import read_header
from litmus.datasets import ImageDataset, Split
from litmus.errors import UsageError, ZooError
from litmus.stacked_training import StackedData, StackSettings, train_stacked
from litmus.training import one_thread, train
from litmus.zoo.ancestors import Fetch, kept_in, no_ancestor
from litmus.zoo.groups import Seat, kind
from litmus.zoo.places import open_place
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import ONE_AT_A_TIME, StackPlan
from litmus.zoo.store import ZooEntry
from litmus.zoo.trainer import (
    TrainedModel,
    measured,
    starting_module,
    train_model,
    training_images,
    write_trained,
)

__all__ = [
    "build_models",
    "commonest",
    "fastest_plan",
    "seconds_per_step",
    "stackable",
    "step_seconds",
    "train_again",
    "train_models",
]

_SIZES: Final = {"cpu": (1, 2, 4, 8), "cuda": (1, 8, 32, 64, 128)}
_STEPS: Final = 4
"""Timed steps of a measurement; one more goes before them."""
_CLEARLY: Final = 1.2
"""A larger stack must be so many times faster: a measurement's noise shall not choose."""
_FACTS: Final = "stack"
"""What the header of a model from a stack says of it."""


def train_models(
    group: Sequence[Seat],
    dataset: ImageDataset,
    plan: StackPlan = ONE_AT_A_TIME,
    fetch: Fetch = no_ancestor,
) -> list[TrainedModel]:
    """Train models of one kind together, each at its own place of the stack.

    The stack always has the plan's size, its other places taken by copies, so that a model's bytes
    do not depend on which others were left to train. What has no stacked form is trained one model
    at a time. `fetch` reads the models that these start from, if any. Raises UsageError for models
    that can't share a stack.
    """
    if plan.single:
        return [train_model(seat.spec, dataset, fetch) for seat in group]
    specs = [seat.spec for seat in group]
    places = {seat.place: number for number, seat in enumerate(group)}
    fits = len(places) == len(group) and max(places) < plan.size
    if not fits or len({kind(spec) for spec in specs}) != 1:
        raise UsageError("these models can't be a stack", expected=plan.size, got=len(specs))
    tuned = [spec.id for spec in specs if spec.fine_tuning is not None]
    if tuned:
        raise ZooError("a fine-tuned model can't be trained from its spec alone", got=tuned[0])
    if not stackable(specs[0], dataset):
        return [train_model(spec, dataset, fetch) for spec in specs]
    data = _shared_images(specs, dataset)
    whole = [places.get(place, 0) for place in range(plan.size)]
    modules = [
        starting_module(specs[number], data.images[data.positions[number]], fetch)
        for number in whole
    ]
    steps = train_stacked(
        modules,
        replace(
            data,
            positions=[data.positions[number] for number in whole],
            labels=[data.labels[number] for number in whole],
        ),
        specs[0].build_training(),
        seeds=[specs[number].seed for number in whole],
        settings=plan.settings,
    )
    return [
        measured(
            seat.spec,
            modules[seat.place],
            steps[seat.place],
            dataset,
            device=plan.settings.device,
            facts={_FACTS: {**plan.kept.to_json(), "place": seat.place}},
        )
        for seat in group
    ]


def train_again(entry: ZooEntry, dataset: ImageDataset) -> TrainedModel:
    """Train a zoo's model as it was trained, alone or at its place in a stack.

    The model that it started from, if any, is read from the zoo's own folder.

    Raises ZooError where that takes a GPU and there is none.
    """
    facts = read_header(entry.path, ZooError).get(_FACTS)
    fetch = kept_in(open_place(entry.path.parent))
    if facts is None:
        return train_model(entry.spec, dataset, fetch)
    place = facts.pop("place")
    plan = StackPlan.from_json(facts)
    if plan.on_gpu and not torch.cuda.is_available():
        raise ZooError(
            "the model was trained on a GPU, and there is none to train it again", where=entry.path
        )
    return train_models([Seat(spec=entry.spec, place=place)], dataset, plan, fetch)[0]


def stackable(spec: ModelSpec, dataset: ImageDataset) -> bool:
    """Return whether models of this kind can be stacked.

    All layers need a stacked form, and all models batches of one size, whatever images their
    attacks add.
    """
    images = spec.dataset["train_images"] or len(dataset.train)
    if images < spec.build_training().batch_size:
        return False
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
    group: Sequence[Seat],
    dataset: ImageDataset,
    folder: Path,
    plan: StackPlan,
    fetch: Fetch = no_ancestor,
) -> list[dict[str, Any]]:
    """Train a stack and store its models, or the reasons why not; return a summary of each.

    Each is charged its equal share of the seconds.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    trained = train_models(group, dataset, plan, fetch)
    cost = {
        "cpu_seconds": round((time.process_time() - cpu) / len(group), 3),
        "seconds": round((time.perf_counter() - wall) / len(group), 3),
    }
    return [
        write_trained(seat.spec, folder, each, cost)
        for seat, each in zip(group, trained, strict=True)
    ]


def step_seconds(
    spec: ModelSpec, dataset: ImageDataset, settings: StackSettings, sizes: Sequence[int] = ()
) -> dict[int, float]:
    """Measure a few steps of models like `spec` at each size; return the seconds of a model's step.

    Torch runs one thread meanwhile. Sizes end where a GPU's memory does, and there are none for
    models that can't be stacked. On the CPU, 1 is the training of single models.
    """
    if not stackable(spec, dataset):
        return {}
    found: dict[int, float] = {}
    with one_thread():
        for size in sizes or _SIZES[torch.device(settings.device).type]:
            try:
                plan = StackPlan(size=size, settings=settings)
                found[size] = seconds_per_step(spec, dataset, plan)
            except torch.cuda.OutOfMemoryError:
                break
    torch.cuda.empty_cache()  # others on this GPU need the memory
    return found


def commonest(specs: Sequence[ModelSpec]) -> ModelSpec:
    """Return the first model of the kind that most of them are of."""
    kinds = [kind(spec) for spec in specs]
    return specs[kinds.index(Counter(kinds).most_common(1)[0][0])]


def fastest_plan(
    specs: Sequence[ModelSpec], settings: StackSettings, seconds: Mapping[int, float]
) -> StackPlan:
    """Choose the size that trains these models in the least time, by the seconds of a model's step.

    A stack takes its time whether it is full or not, so that stacks of models of many kinds do not
    pay. A larger size is taken where it is clearly faster than the best smaller one.
    """
    counts = Counter(map(kind, specs)).values()
    best, best_time = 1, float("inf")
    for size, each in sorted(seconds.items()):
        total = each * sum(-(-count // size) * size for count in counts)
        if total * (_CLEARLY if size > 1 else 1) < best_time:
            best, best_time = size, total
    return StackPlan(size=best, settings=settings)


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
