"""Several networks of one architecture trained as one, each as `litmus.training.train` would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import nn

from litmus.architectures.stacking import ConvolutionName, Stack
from litmus.datasets import Split
from litmus.errors import UsageError
from litmus.seeds import torch_generator
from litmus.training import Draw, TrainingSpec, augmented, draws, make_optimizer, make_schedule

__all__ = ["PLAIN", "Precision", "StackSettings", "StackedData", "train_stacked"]

Precision = Literal["float32", "tf32", "bf16"]
_EPSILON: Final = 1e-8
_ADAM_BETA: Final = 0.999
_RMSPROP_BETA: Final = 0.99
_ROW: Final = 64
"""Rows are padded to multiples of so many numbers: what a vector's tail holds may be rounded
otherwise, and a network's weights shall not depend on its place in the stack."""


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """Where and how a stack is trained.

    `precision` is that of convolutions and products on a GPU: plain float32, TF32 or bfloat16.
    Weights, statistics and updates are float32 in any case.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    convolution: ConvolutionName = "grouped"


PLAIN: Final = StackSettings()
"""On the CPU, as separate models are trained."""


@dataclass(frozen=True, kw_only=True)
class StackedData:
    """The images of all networks once, uint8 (n, c, h, w), and which of them are whose.

    `positions` has for each network the images that it is trained on, int64, and `labels` what
    it is told that they are, int64.
    """

    images: torch.Tensor
    positions: Sequence[torch.Tensor]
    labels: Sequence[torch.Tensor]

    @classmethod
    def of(cls, splits: Sequence[Split]) -> StackedData:
        """Put splits one after the other; nothing is shared."""
        ends = torch.tensor([len(split) for split in splits]).cumsum(0).tolist()
        return cls(
            images=torch.cat([split.images for split in splits]),
            positions=[
                torch.arange(end - len(split), end) for split, end in zip(splits, ends, strict=True)
            ],
            labels=[split.labels for split in splits],
        )


def train_stacked(
    modules: Sequence[nn.Module],
    data: StackedData,
    spec: TrainingSpec,
    *,
    seeds: Sequence[int],
    settings: StackSettings = PLAIN,
) -> list[int]:
    """Train networks in place, on the CPU or a GPU, and return each one's number of steps.

    Each begins with its own weights, and has its own images, order, augmentation, dropout, schedule
    and number of steps: all that `train` draws from its seed. What differs from `train` is the
    rounding. Leaves the networks on the CPU, in evaluation mode. Raises UsageError where they can't
    be stacked, or do not agree on the size of a batch.
    """
    counts = [len(labels) for labels in data.labels]
    if len({min(spec.batch_size, count) for count in counts}) > 1:
        raise UsageError("networks with batches of different sizes can't be stacked", got=counts)
    stack = Stack(
        modules,
        generators=[torch_generator(seed, "dropout") for seed in seeds],
        convolution=settings.convolution,
    )
    stack.to(settings.device).train()
    steps = [spec.steps(count) for count in counts]
    course = torch.stack([_course(spec, count, max(steps)) for count in counts]).to(settings.device)
    update = _Update(stack, spec)
    with _precision(settings):
        batches = _batches(data, spec, seeds, max(steps), settings.device)
        for step, (images, labels) in enumerate(batches):
            with _autocast(settings):
                logits = stack(images).float()
            _losses(logits, labels, spec).sum().backward()  # type: ignore[no-untyped-call]
            update.step(course[:, step])
            for place, last in enumerate(steps):
                if step + 1 == last:
                    _take(modules[place], stack, place)
    return steps


def _take(module: nn.Module, stack: Stack, place: int) -> None:
    """Give a network its weights; the stack may train others on."""
    module.load_state_dict(stack.state_of(place))
    module.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _losses(logits: torch.Tensor, labels: torch.Tensor, spec: TrainingSpec) -> torch.Tensor:
    """Return the cross-entropies (G,) of logits (G, n, k)."""
    each = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        label_smoothing=spec.label_smoothing,
        reduction="none",
    )
    return each.view(labels.shape).mean(dim=1)


def _batches(
    data: StackedData, spec: TrainingSpec, seeds: Sequence[int], steps: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield images (n, G * c, h, w) and labels (G, n).

    A network that has had its steps sees its last batch again.
    """
    images = data.images.to(device)
    positions = [p.to(device) for p in data.positions]
    labels = [each.to(device) for each in data.labels]
    drawn = [
        draws(len(p), spec, torch_generator(seed, "batches"))
        for p, seed in zip(positions, seeds, strict=True)
    ]
    latest = [next(stream) for stream in drawn]
    models = len(latest)
    for step in range(steps):
        if step:
            latest = [next(stream, old) for stream, old in zip(drawn, latest, strict=True)]
        draw = _joined(latest, device)
        chosen = draw.positions.view(models, -1)
        whose = torch.stack([p[c] for p, c in zip(positions, chosen, strict=True)])
        batch = augmented(images[whose.flatten()], draw, spec)
        # (G * n, c, h, w) to (n, G * c, h, w).
        batch = torch.unflatten(batch, 0, (models, -1)).transpose(0, 1).flatten(1, 2)
        batch = batch.float().div_(255).contiguous(memory_format=torch.channels_last)
        yield batch, torch.stack([y[c] for y, c in zip(labels, chosen, strict=True)])


def _joined(latest: Sequence[Draw], device: str) -> Draw:
    """The networks' draws one after the other."""
    mirrored = [draw.mirrored for draw in latest if draw.mirrored is not None]
    offset = [draw.offset for draw in latest if draw.offset is not None]
    return Draw(
        positions=torch.cat([draw.positions for draw in latest]).to(device),
        mirrored=torch.cat(mirrored).to(device) if mirrored else None,
        offset=torch.cat(offset, dim=1).to(device) if offset else None,
    )


@lru_cache(maxsize=256)
def _course(spec: TrainingSpec, count: int, steps: int) -> torch.Tensor:
    """Return learning rate and momentum (beta 1 of Adam) of each step, float64 (steps, 2).

    Both are 0 behind a network's own steps.
    """
    course = torch.zeros(steps, 2, dtype=torch.float64)
    optimizer = make_optimizer(nn.Linear(1, 1), spec)
    schedule = make_schedule(optimizer, spec, spec.planned_steps(count))
    for step in range(spec.steps(count)):
        group = optimizer.param_groups[0]
        betas = group.get("betas", (group.get("momentum", 0.0),))
        course[step] = torch.tensor([group["lr"], betas[0]])
        optimizer.step()  # the schedule wants it; without gradients it does nothing
        schedule.step()
    return course


class _Update:
    """The optimiser of `litmus.training` on all networks at a time, each at its own rate.

    Weights are rows of one matrix (G, p), so that a step is a few passes over it. Formulas are
    torch's: AdamW, SGD with Nesterov's momentum, RMSprop.
    """

    def __init__(self, stack: Stack, spec: TrainingSpec) -> None:
        self.spec = spec
        self.parameters = [p for p in stack.parameters() if p.requires_grad]
        self.sizes = [p[0].numel() for p in self.parameters]
        self.weights = self._flat([p.detach() for p in self.parameters])
        self.first = torch.zeros_like(self.weights)
        self.second = torch.zeros_like(self.weights)
        self.steps = 0

    def step(self, course: torch.Tensor) -> None:
        """Take a step at the rates and momenta `course` (G, 2), and drop the gradients."""
        rate, momentum = (column[:, None] for column in course.unbind(1))
        gradient = self._flat([_gradient(p) for p in self.parameters])
        self.steps += 1
        if self.spec.optimizer == "adam":
            self._adam(gradient, rate, momentum)
        else:
            gradient = gradient.add(self.weights, alpha=self.spec.weight_decay)
            if self.spec.optimizer == "sgd":
                self._sgd(gradient, rate.float(), momentum.float())
            else:
                self._rmsprop(gradient, rate.float())
        parts = torch.split(self.weights[:, : sum(self.sizes)], self.sizes, dim=1)
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.data.copy_(part.view_as(parameter))
            parameter.grad = None

    def _adam(self, gradient: torch.Tensor, rate: torch.Tensor, beta: torch.Tensor) -> None:
        self.weights.mul_((1 - rate * self.spec.weight_decay).float())
        self.first.lerp_(gradient, (1 - beta).float())
        self.second.mul_(_ADAM_BETA).addcmul_(gradient, gradient, value=1 - _ADAM_BETA)
        size = (rate / (1 - beta**self.steps)).float()
        root = (self.second.sqrt() / (1 - _ADAM_BETA**self.steps) ** 0.5).add_(_EPSILON)
        self.weights.sub_(size * self.first / root)

    def _sgd(self, gradient: torch.Tensor, rate: torch.Tensor, momentum: torch.Tensor) -> None:
        # torch's first step takes the gradient as it is; so does this, from zero.
        self.first.mul_(momentum).add_(gradient)
        self.weights.sub_(rate * (gradient + momentum * self.first))

    def _rmsprop(self, gradient: torch.Tensor, rate: torch.Tensor) -> None:
        self.second.mul_(_RMSPROP_BETA).addcmul_(gradient, gradient, value=1 - _RMSPROP_BETA)
        self.weights.sub_(rate * gradient / self.second.sqrt().add_(_EPSILON))

    def _flat(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        flat = torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
        return F.pad(flat, (0, -flat.shape[1] % _ROW))


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _autocast(settings: StackSettings) -> contextlib.AbstractContextManager[object]:
    if settings.precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16)


@contextlib.contextmanager
def _precision(settings: StackSettings) -> Iterator[None]:
    """Let a GPU round float32 products to TF32, or keep it from that; then as it was before."""
    allow = settings.precision == "tf32"
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=allow
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
