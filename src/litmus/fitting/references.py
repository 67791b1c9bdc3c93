"""Reference images: one a class, learned, that all clean models of a zoo agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.fitting.ensemble import FOLDS, assign_folds
from litmus.fitting.learn import total_variation
from litmus.fitting.population import ModelDropout, Population, canonical
from litmus.models import Images, InputSpec
from litmus.seeds import torch_generator
from litmus.zoo import ZooEntry

__all__ = ["ReferenceSettings", "learn_references", "reference_folds"]

_LEVELS: Final = 255
"""Reference images are pictures of 8 bits: small files, and exact for a network that eats bytes."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """How reference images are learned.

    Adam's `learning_rate` falls along a cosine over `steps` of `batch_models` models. `dropout`
    is the share of channels that model dropout removes. In every step and for every model the
    images are moved by up to `shift` pixels, and up to `fading` of their contrast is taken out:
    what is left must do. `tv_weight` times their total variation and `faint_weight` times the
    absolute difference of every pixel from the background, each the mean over channels, are added
    to the sum of their cross-entropies: what a class does not need is left out, since it might be
    some backdoor's trigger. They start as the background with noise of `start`, in pixel values.
    Where `covering` is above 0, a square of that many pixels is covered by a piece of another
    class's image in each view: what is left must do, so that images are hard to turn.
    """

    steps: int = 300
    batch_models: int = 16
    learning_rate: float = 0.03
    tv_weight: float = 3e-3
    faint_weight: float = 1e-2
    dropout: float = 0.1
    shift: int = 1
    fading: float = 0.5
    start: float = 0.02
    covering: int = 0

    def __post_init__(self) -> None:
        for name, low in {"steps": 1, "batch_models": 1, "shift": 0, "covering": 0}.items():
            if getattr(self, name) < low:
                raise UsageError(
                    f"{name} is impossible", expected=f">= {low}", got=getattr(self, name)
                )
        for name in ("dropout", "fading"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{name} is impossible", expected="0 <= p < 1", got=getattr(self, name)
                )


def reference_folds(entries: Sequence[ZooEntry], seed: int) -> tuple[NDArray[np.int64], str]:
    """Return each model's fold of five, and of what: architectures where there are five, or twins.

    Raises ZooError where there are too few models.
    """
    families = {entry.architecture for entry in entries}
    by = "architecture" if len(families) >= FOLDS else "twin"
    assigned, _ = assign_folds(entries, seed, by=by)
    return assigned, by


def learn_references(
    entries: Sequence[ZooEntry],
    background: NDArray[np.float32],
    settings: ReferenceSettings,
    *,
    seed: int,
    classes: NDArray[np.int64] | None = None,
    memory: int | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Images:
    """Return an image for each of the classes, by default all: (s, c, h, w).

    All these models take it for that class. They start as the `background` (c,) with the faintest
    noise. Deterministic for a seed, torch version, processor and number of threads.
    """
    population = Population.load(entries, memory=memory)
    spec = entries[0].spec.input_spec
    wanted = torch.arange(spec.num_classes) if classes is None else torch.from_numpy(classes)
    images = _start(spec, background, settings.start, seed)[wanted].requires_grad_()
    optimizer = torch.optim.Adam([images], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    dropout = ModelDropout(settings.dropout, torch_generator(seed, "reference dropout"))
    drawn = torch_generator(seed, "reference views")
    level = torch.from_numpy(background)[:, None, None]
    batches = _batches(len(population), settings.batch_models, seed)
    for step in range(settings.steps):
        optimizer.zero_grad()
        for index in (batch := next(batches)):
            view = _view(images, level, settings, drawn)
            with dropout:
                answers = population.answers(view, [index], canonical)[0]
            loss = F.nll_loss(answers, wanted, reduction="sum")
            torch.autograd.backward(loss / len(batch))
        rough = settings.tv_weight * total_variation(images)
        strange = settings.faint_weight * (images - level).abs().sum()
        torch.autograd.backward((rough + strange) / spec.channels)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
        on_step(step + 1, settings.steps)
    learned: Images = ((images.detach() * _LEVELS).round() / _LEVELS).numpy()
    return learned


def _start(
    spec: InputSpec, background: NDArray[np.float32], amount: float, seed: int
) -> torch.Tensor:
    # A ReLU network may have no gradient where an image is all black.
    generator = torch_generator(seed, "references")
    noise = 2 * torch.rand(spec.num_classes, *spec.image_shape, generator=generator) - 1
    return (torch.from_numpy(background)[:, None, None] + amount * noise).clamp(0, 1)


def _view(
    images: torch.Tensor, level: torch.Tensor, settings: ReferenceSettings, drawn: torch.Generator
) -> torch.Tensor:
    """The images, moved a little and faded towards the background's `level`."""
    down, right = (
        int(v) for v in torch.randint(-settings.shift, settings.shift + 1, (2,), generator=drawn)
    )
    contrast = 1 - settings.fading * float(torch.rand((), generator=drawn))
    view = level + contrast * (torch.roll(images, (down, right), (2, 3)) - level)
    return _covered(view, settings.covering, drawn) if settings.covering else view


def _covered(images: torch.Tensor, side: int, drawn: torch.Generator) -> torch.Tensor:
    """Cover a square of each image by a piece, from anywhere, of another class's."""
    count, _, height, width = images.shape
    covered, others = images.clone(), images.detach().roll(1 + _pick(count - 1, drawn), 0)
    for i in range(count):
        y, x, v, u = (_pick(size - side + 1, drawn) for size in (height, width) * 2)
        covered[i, :, y : y + side, x : x + side] = others[i, :, v : v + side, u : u + side]
    return covered


def _pick(below: int, drawn: torch.Generator) -> int:
    return int(torch.randint(max(below, 1), (1,), generator=drawn))


def _batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Yield minibatches of models for ever; every model comes as often as any other."""
    generator = torch_generator(seed, "reference order")
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]
