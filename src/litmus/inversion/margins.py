"""The largest margin that any image gives a class: MM-BD (Wang et al. 2022); no clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litmus.checks import check_at_least
from litmus.errors import UsageError
from litmus.models import InputSpec
from litmus.seeds import torch_generator

__all__ = ["MarginSettings", "maximum_margins"]

_CHUNK: Final = 1024
"""Images in one forward and backward pass."""


@dataclass(frozen=True, kw_only=True)
class MarginSettings:
    """How margins are maximised.

    `steps` steps of projected gradient ascent with Adam from each of `starts` random images, the
    same ones for every class; the step, in pixel values, falls from `learning_rate` to 0.
    """

    steps: int = 50
    starts: int = 4
    learning_rate: float = 0.4

    def __post_init__(self) -> None:
        check_at_least(self, steps=1, starts=1)
        if not self.learning_rate > 0:
            raise UsageError("learning_rate is impossible", expected="> 0", got=self.learning_rate)


def maximum_margins(
    module: nn.Module, input_spec: InputSpec, settings: MarginSettings, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return each class's largest margin (k,) over images in [0, 1]: the best of all starts.

    A margin is the logit of the class minus the largest other logit. `module` is a prepared one.
    Deterministic for a seed, torch version, processor and number of threads.
    """
    k, shape = input_spec.num_classes, input_spec.image_shape
    starts = torch.rand(settings.starts, *shape, generator=torch_generator(seed, "margins"))
    targets = torch.arange(k).repeat_interleave(settings.starts)
    images = starts.repeat(k, 1, 1, 1)
    parts = [
        _ascend(module, images[chunk], targets[chunk], settings)
        for chunk in torch.split(torch.arange(len(images)), _CHUNK)
    ]
    best = torch.cat(parts).view(k, settings.starts)
    margins: NDArray[np.float64] = best.amax(dim=1).double().numpy()
    return margins


def _ascend(
    module: nn.Module, starts: torch.Tensor, targets: torch.Tensor, settings: MarginSettings
) -> torch.Tensor:
    """Return the largest margin on the way up from every start (n,)."""
    images = starts.contiguous(memory_format=torch.channels_last).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([images], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1.0, end_factor=0.0, total_iters=settings.steps
    )
    best = torch.full((len(starts),), -torch.inf)
    for _ in range(settings.steps):
        margins = _margins(module(images), targets)
        best = torch.maximum(best, margins.detach())
        # Not `backward`: a module that is not prepared keeps its own gradients.
        (gradient,) = torch.autograd.grad(-margins.sum(), images)
        images.grad = gradient
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    with torch.no_grad():
        return torch.maximum(best, _margins(module(images), targets))


def _margins(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)
