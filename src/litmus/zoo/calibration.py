"""How long this machine takes for a recipe's networks: a few steps of a few of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from litmus.attacks import extra_images
from litmus.datasets import ImageDataset, Split
from litmus.seeds import torch_generator
from litmus.training import one_thread, predict, train
from litmus.zoo.costs import Cost
from litmus.zoo.spec import ModelSpec

__all__ = ["Family", "Line", "calibrate", "convolution_rate"]

_SAMPLES: Final = 3
_STEPS: Final = 5
_PREDICTED: Final = 500
_POISONED: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Line:
    """Seconds as `fixed + per_flop * flops`, neither below 0."""

    fixed: float
    per_flop: float

    def __call__(self, flops: float) -> float:
        """Return the seconds of so many operations."""
        return self.fixed + self.per_flop * flops


@dataclass(frozen=True, kw_only=True)
class Family:
    """CPU-seconds that networks of one architecture take on one thread.

    `step` is of one training step, `image` of one image that is predicted, by the operations of
    each; `extra` is of one image that the attack adds. `samples` networks were measured.
    """

    step: Line
    image: Line
    extra: float
    samples: int

    def seconds(self, cost: Cost, *, predicted: int, extra: int) -> float:
        """Return the CPU-seconds of a whole model: its images, its training, its measurement."""
        training = cost.steps * self.step(cost.step_flops)
        return training + predicted * self.image(cost.forward_flops) + extra * self.extra


def calibrate(
    specs: Sequence[ModelSpec], count: Callable[[ModelSpec], Cost], dataset: ImageDataset
) -> dict[str, Family]:
    """Return what each architecture takes, by name, on one thread of this machine.

    Up to three networks of each architecture are trained for a few steps: the smallest, the
    median and the largest by operations, since the rate that is attained differs by architecture
    and size. CPU time is taken, so that other processes disturb little.
    """
    by_name: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        by_name.setdefault(str(spec.architecture["name"]), []).append(spec)
    with one_thread():
        return {
            name: _family(_spread(members, count), count, dataset)
            for name, members in by_name.items()
        }


def convolution_rate() -> float:
    """Return the GFLOP/s that one thread attains in training a plain convolution, 3x3, 32 to 32."""
    convolution = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(64, 32, 16, 16).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    operations = 3 * 2 * 64 * 16 * 16 * 32 * 32 * 9
    with one_thread():
        times = [
            _cpu_seconds(lambda: torch.autograd.backward(convolution(images).sum()))
            for _ in range(20)
        ]
    return operations / statistics.median(times[2:]) / 1e9


def _family(
    samples: Sequence[ModelSpec], count: Callable[[ModelSpec], Cost], dataset: ImageDataset
) -> Family:
    steps, images, extras = [], [], []
    for spec in samples:
        cost = count(spec)
        step, image = _network_seconds(spec, cost, dataset)
        steps.append((cost.step_flops, step))
        images.append((cost.forward_flops, image))
        extras.append(_extra_seconds(spec, dataset))
    return Family(
        step=_line(steps),
        image=_line(images),
        extra=statistics.mean(extras),
        samples=len(samples),
    )


def _network_seconds(spec: ModelSpec, cost: Cost, dataset: ImageDataset) -> tuple[float, float]:
    """CPU-seconds of one training step, and of the prediction of one image."""
    module = spec.build_architecture().build(spec.input_spec, seed=0)
    some = torch.arange(_STEPS * cost.batch_size) % len(dataset.train)
    data = dataset.train[some]
    training = replace(spec.build_training(), epochs=1, stop=None)
    train(module, dataset.train[some[: 2 * cost.batch_size]], training, seed=0)  # sets memory up
    step = _cpu_seconds(lambda: train(module, data, training, seed=0)) / _STEPS
    test = dataset.test.images[:_PREDICTED]
    predict(module, test)
    return step, _cpu_seconds(lambda: predict(module, test)) / len(test)


def _extra_seconds(spec: ModelSpec, dataset: ImageDataset) -> float:
    clean = dataset.train[torch.arange(min(_POISONED, len(dataset.train)))]
    attack = spec.build_attack()
    made: list[Split] = []
    seconds = _cpu_seconds(
        lambda: made.append(extra_images(clean, attack, "backdoored", torch_generator(0)))
    )
    return seconds / len(made[0])


def _spread(members: Sequence[ModelSpec], count: Callable[[ModelSpec], Cost]) -> list[ModelSpec]:
    """The smallest, the median and the largest, each network once."""
    by_flops = {count(spec).step_flops: spec for spec in members}
    ordered = [by_flops[flops] for flops in sorted(by_flops)]
    if len(ordered) <= _SAMPLES:
        return ordered
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _line(points: Sequence[tuple[float, float]]) -> Line:
    """The least-squares line; through the origin where it would have a negative part."""
    flops, seconds = zip(*points, strict=True)
    if len(set(flops)) > 1:  # batch sizes differ where networks don't
        slope, intercept = statistics.linear_regression(flops, seconds)
        if slope > 0 and intercept > 0:
            return Line(fixed=intercept, per_flop=slope)
    return Line(fixed=0.0, per_flop=sum(seconds) / max(sum(flops), 1.0))


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
