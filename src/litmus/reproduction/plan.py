"""How long an experiment will take, from a short timing of each recipe's network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from litmus.reproduction.pool import missing_tasks
from litmus.reproduction.study import Study
from litmus.reproduction.tasks import FitTask, Task, Work, digest
from litmus.zoo import Recipe, ZooEntry

__all__ = ["Plan", "Speed", "make_plan", "measure_speed", "training_flops"]

_BATCHES: Final = (4, 64)
_ROUNDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of one thread for a pass forward and backward: so many, and so many an image."""

    per_pass: float
    per_image: float

    def seconds(self, work: Work) -> float:
        """Return how long so much work takes."""
        return work.passes * self.per_pass + work.images * self.per_image


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is still to be done, and about how many seconds that takes on `workers` processes."""

    models: int
    fits: int
    measurements: int
    done: int
    seconds: float
    workers: int

    def __str__(self) -> str:
        processes = "1 process" if self.workers == 1 else f"{self.workers} processes"
        return (
            f"about {_duration(self.seconds)} on {processes}: {self.models} models to train, "
            f"{self.fits} fits, {self.measurements} measurements; {self.done} already done"
        )


def make_plan(
    study: Study, tasks: Sequence[Task], *, workers: int, alone: Sequence[tuple[str, Work]] = ()
) -> Plan:
    """Count what is not cached and estimate how long it takes.

    `alone` is work by recipe that one process does by itself.
    """
    waiting = missing_tasks(tasks)
    models = sum(study.missing.values())
    names = {task.zoo for task in waiting} | {name for name, _ in alone}
    names |= {name for name, missing in study.missing.items() if missing}
    speeds = {name: measure_speed(study.recipes[name], study.zoos[name].entries) for name in names}
    shared = sum(speeds[task.zoo].seconds(task.work()) for task in waiting)
    shared += sum(
        missing * speeds[name].seconds(_training_work(study, name))
        for name, missing in study.missing.items()
        if missing
    )
    fits = sum(isinstance(task, FitTask) for task in waiting)
    return Plan(
        models=models,
        fits=fits,
        measurements=len(waiting) - fits,
        done=len({digest(task) for task in tasks}) - len(waiting),
        seconds=shared / workers + sum(speeds[name].seconds(work) for name, work in alone),
        workers=workers,
    )


def measure_speed(recipe: Recipe, entries: Sequence[ZooEntry]) -> Speed:
    """Time batches of 4 and of 64 through the recipe's first network, on one thread."""
    import torch

    spec = entries[0].spec.input_spec
    module = recipe.architectures[0].at().build(spec, seed=0)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = (_time_pass(module, spec.image_shape, size) for size in _BATCHES)
    finally:
        torch.set_num_threads(threads)
    per_image = max(large - small, 0.0) / (_BATCHES[1] - _BATCHES[0])
    return Speed(per_pass=max(small - _BATCHES[0] * per_image, 0.0), per_image=per_image)


def training_flops(entry: ZooEntry, batch_size: int) -> float:
    """Return the floating-point operations of a model's training, forward and backward.

    Counted on one batch (a multiply-add is two), times the steps that its header says.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = entry.spec.build_architecture().build(entry.spec.input_spec, seed=0)
    images = torch.zeros(batch_size, *entry.spec.input_spec.image_shape)
    with FlopCounterMode(display=False) as counter:
        module(images).sum().backward()
    return float(counter.get_total_flops()) * entry.steps


def _time_pass(module: object, shape: tuple[int, int, int], batch: int) -> float:
    import torch
    from torch import nn

    assert isinstance(module, nn.Module)
    images = torch.rand(batch, *shape).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        torch.autograd.backward(module(images).sum())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one sets memory up


def _training_work(study: Study, name: str) -> Work:
    recipe = study.recipes[name]
    count = recipe.dataset.train_images or len(study.images[name].load().train)
    training = recipe.trainings[0].at()
    images = training.epochs * count
    return Work(passes=images / training.batch_size, images=images)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1 if seconds else 0):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
