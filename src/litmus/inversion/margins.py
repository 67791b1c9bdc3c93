"""The largest margin that any image gives a class: MM-BD (Wang et al. 2022); no clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.checks import check_at_least
from litmus.errors import UsageError
from litmus.inversion.adam import Adam
from litmus.models import Gradients, Images
from litmus.seeds import Draws

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
    model: Gradients, settings: MarginSettings, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return each class's largest margin (k,) over images in [0, 1]: the best of all starts.

    A margin is the logit of the class minus the largest other logit. Deterministic for a seed and
    a model that is.
    """
    k, shape = model.input_spec.num_classes, model.input_spec.image_shape
    starts = Draws(seed, "margins").uniform(settings.starts, *shape)
    targets = np.repeat(np.arange(k), settings.starts)
    images = np.tile(starts, (k, 1, 1, 1))
    parts = [
        _ascend(model, images[chunk : chunk + _CHUNK], targets[chunk : chunk + _CHUNK], settings)
        for chunk in range(0, len(images), _CHUNK)
    ]
    best: NDArray[np.float64] = np.concatenate(parts).reshape(k, settings.starts).max(axis=1)
    return best


def _ascend(
    model: Gradients, images: Images, targets: NDArray[np.int64], settings: MarginSettings
) -> NDArray[np.float64]:
    """Return the largest margin on the way up from every start (n,)."""
    images, adam = images.copy(), Adam(images)
    best = np.full(len(images), -np.inf)
    for step in range(settings.steps):
        logits, gradients = model.descend(images, targets, "margin")
        best = np.maximum(best, _margins(logits, targets))
        adam.step(images, gradients, settings.learning_rate * (1 - step / settings.steps))
        np.clip(images, 0, 1, out=images)
    last: NDArray[np.float64] = np.maximum(best, _margins(model.logits(images), targets))
    return last


def _margins(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, others = np.arange(len(logits)), logits.astype(np.float64)
    own: NDArray[np.float64] = others[rows, targets]
    others[rows, targets] = -np.inf
    margins: NDArray[np.float64] = own - others.max(axis=1)
    return margins
