"""One training loop for clean and backdoored models alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from itertools import islice
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.datasets import Split
from litmus.schema import STRICT
from litmus.seeds import derive_seed, torch_generator

__all__ = [
    "Draw",
    "Penalty",
    "TrainingSpec",
    "as_input",
    "augmented",
    "draws",
    "make_optimizer",
    "make_schedule",
    "one_thread",
    "predict",
    "train",
]

Penalty = Callable[[nn.Module], torch.Tensor]
"""A scalar that each step of a training adds to the cross-entropy.

It leaves the module in training mode, and torch's global generator as it was.
"""

_EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingSpec:
    """How a model is trained.

    The learning rate follows one cycle (Smith 2018): up to `peak_learning_rate` over the first
    `warmup` share of the steps, then down to zero along a cosine; with schedule `constant` it
    stays at `peak_learning_rate`. `shift` moves each image by up to that many pixels, `flip`
    mirrors half of them left to right. `stop` ends the training after that share of its steps.
    `name` tells trainings of one recipe apart.
    """

    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    peak_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.2
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    # What came later than the first zoos may be None, which leaves their models' ids as they are.
    name: str | None = None
    schedule: Literal["one_cycle", "constant"] | None = None
    stop: Annotated[float, Field(gt=0, le=1)] | None = None

    def planned_steps(self, num_images: int) -> int:
        """Return the number of optimiser steps that the schedule is laid out for."""
        return self.epochs * (num_images // min(self.batch_size, num_images))

    def steps(self, num_images: int) -> int:
        """Return the number of optimiser steps for a training set of that size."""
        planned = self.planned_steps(num_images)
        return planned if self.stop is None else max(1, round(self.stop * planned))


def train(
    module: nn.Module,
    data: Split,
    spec: TrainingSpec,
    *,
    seed: int,
    penalty: Penalty | None = None,
) -> int:
    """Train `module` in place on uint8 images and return the number of steps.

    The result depends on nothing but the arguments, the torch version and the processor, as long
    as torch runs one thread. Leaves the module in evaluation mode.
    """
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(module, spec)
    schedule = make_schedule(optimizer, spec, spec.planned_steps(len(data)))
    steps = spec.steps(len(data))
    batches = _batches(data, spec, torch_generator(seed, "batches"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout"))  # of layers that drop while they learn
        for images, labels in islice(batches, steps):
            loss = F.cross_entropy(module(images), labels, label_smoothing=spec.label_smoothing)
            if penalty is not None:
                loss = loss + penalty(module)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    module.eval()
    return steps


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch run one thread, as the workers that make models do; then as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def predict(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the predicted classes, int64 (n,), of uint8 images by a module in evaluation mode."""
    device = next(module.parameters()).device
    with torch.inference_mode():
        logits = [
            module(as_input(batch.to(device))) for batch in torch.split(images, _EVALUATION_BATCH)
        ]
    return torch.cat(logits).argmax(dim=1).cpu()


def make_schedule(
    optimizer: torch.optim.Optimizer, spec: TrainingSpec, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate's course over so many steps."""
    if spec.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # The scheduler divides by warmup * steps - 1.
    warmup = spec.warmup if spec.warmup * steps != 1 else spec.warmup * (1 + 1e-9)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        spec.peak_learning_rate,
        total_steps=steps,
        pct_start=warmup,
        cycle_momentum=spec.optimizer != "rmsprop",  # it has none
    )


def make_optimizer(module: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return the optimiser of a module's parameters."""
    if spec.optimizer == "adam":
        return torch.optim.AdamW(
            module.parameters(), lr=spec.peak_learning_rate, weight_decay=spec.weight_decay
        )
    if spec.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            module.parameters(), lr=spec.peak_learning_rate, weight_decay=spec.weight_decay
        )
    return torch.optim.SGD(
        module.parameters(),
        lr=spec.peak_learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=spec.weight_decay,
    )


@plain_dataclass(frozen=True, kw_only=True)
class Draw:
    """What is drawn for a batch: positions (n,), which are mirrored (n,), how they are moved.

    `offset` is (2, n, 1): rows and columns from the corner of the padded image.
    """

    positions: torch.Tensor
    mirrored: torch.Tensor | None
    offset: torch.Tensor | None


def draws(count: int, spec: TrainingSpec, generator: torch.Generator) -> Iterator[Draw]:
    """Yield what every batch of `count` images is made of, without a look at the images.

    Each epoch is a fresh permutation without its remainder.
    """
    size = min(spec.batch_size, count)
    for _ in range(spec.epochs):
        order = torch.randperm(count, generator=generator)
        for batch in torch.split(order, size)[: count // size]:
            mirrored = torch.rand(size, generator=generator) < 0.5 if spec.flip else None
            offset = None
            if spec.shift:
                offset = torch.randint(0, 2 * spec.shift + 1, (2, size, 1), generator=generator)
            yield Draw(positions=batch, mirrored=mirrored, offset=offset)


def augmented(images: torch.Tensor, draw: Draw, spec: TrainingSpec) -> torch.Tensor:
    """Return a batch (n, c, h, w) mirrored and moved as drawn, on the images' device."""
    n, _, height, width = images.shape
    if draw.mirrored is not None:
        images = torch.where(draw.mirrored[:, None, None, None], images.flip(3), images)
    if draw.offset is not None:
        padded = F.pad(images, (spec.shift,) * 4)
        rows = (draw.offset[0] + torch.arange(height, device=images.device))[:, :, None]
        columns = (draw.offset[1] + torch.arange(width, device=images.device))[:, None, :]
        which = torch.arange(n, device=images.device)[:, None, None]
        images = padded[which, :, rows, columns].permute(0, 3, 1, 2)
    return images


def _batches(
    data: Split, spec: TrainingSpec, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield float32 images and labels."""
    for draw in draws(len(data), spec, generator):
        images = augmented(data.images[draw.positions], draw, spec)
        yield as_input(images), data.labels[draw.positions]


def as_input(images: torch.Tensor) -> torch.Tensor:
    """Uint8 to float32 in [0, 1], in the memory format that convolutions are fastest with."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)
