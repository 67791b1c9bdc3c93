"""A mask and a pattern for every target class: Neural Cleanse (Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from litmus.checks import check_at_least
from litmus.errors import UsageError
from litmus.inversion.subject import ClassImages
from litmus.seeds import torch_generator

__all__ = [
    "MaskInversion",
    "MaskSettings",
    "anomaly_indices",
    "invert_masks",
    "reverse_masks",
    "with_masks",
]

_CHUNK: Final = 1024
"""Images in one forward and backward pass; each class is in one of them whole."""
_CONSISTENCY: Final = 1.4826
"""Makes the median absolute deviation an estimate of a normal's standard deviation."""
_ANOMALOUS: Final = 2.0
"""An index above this is an outlier with more than 95 % probability (Wang et al. 2019, IV.B)."""
_INITIAL: Final = -4.0
"""Masks start at sigmoid(-4), nearly transparent."""


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How masks and patterns are optimised.

    `steps` steps of Adam on `batch_images` images of all classes. The weight of the mask's l1
    norm is each class's own: 0 until `success_threshold` of the images of `patience` steps are
    turned, then `initial_weight`; after every further `patience` steps it is multiplied by
    `weight_factor` if so many were turned again, divided by its power 1.5 if not.
    """

    images_per_class: int = 24
    batch_images: int = 24
    steps: int = 200
    learning_rate: float = 0.1
    success_threshold: float = 0.99
    initial_weight: float = 1e-3
    weight_factor: float = 2.0
    patience: int = 5

    def __post_init__(self) -> None:
        check_at_least(self, images_per_class=1, batch_images=1, steps=1, patience=1)
        if not 0 < self.success_threshold <= 1:
            raise UsageError(
                "success_threshold is impossible",
                expected="above 0, at most 1",
                got=self.success_threshold,
            )


@dataclass(frozen=True, kw_only=True)
class MaskInversion:
    """The reversed triggers: masks (k, 1, h, w) and patterns (k, c, h, w), both in [0, 1].

    `norms` (k,) are the masks' l1 norms in pixels, `success` (k,) the share of all images that
    the trigger turns to the class, `indices` (k,) the anomaly indices of the norms.
    """

    masks: torch.Tensor
    patterns: torch.Tensor
    norms: torch.Tensor
    success: torch.Tensor
    indices: torch.Tensor

    @property
    def smallest(self) -> int:
        """The class that is easiest to reach."""
        return int(self.norms.argmin())

    @property
    def anomaly_index(self) -> float:
        """How far the smallest norm lies below the median, in (robust) standard deviations."""
        return float(self.indices[self.smallest])

    @property
    def flagged_class(self) -> int | None:
        """The likely target class, if the smallest norm is an outlier."""
        return self.smallest if self.anomaly_index > _ANOMALOUS else None

    @property
    def trigger(self) -> torch.Tensor:
        """The reversed trigger of the easiest class as a picture (c, h, w): pattern in mask."""
        return self.masks[self.smallest] * self.patterns[self.smallest]


def anomaly_indices(norms: torch.Tensor) -> torch.Tensor:
    """Return |norm - median| over the scaled median absolute deviation (k,).

    Where more than half of the norms are equal, the deviation is taken as 1e-9 of a pixel.
    """
    values = norms.double()
    deviation = (values - values.quantile(0.5)).abs()
    return deviation / (_CONSISTENCY * deviation.quantile(0.5)).clamp(min=1e-9)


def invert_masks(
    module: nn.Module, clean: ClassImages, settings: MaskSettings, *, seed: int = 0
) -> MaskInversion:
    """Reverse a trigger for every target class, all classes in one batch: see `reverse_masks`."""
    targets = range(clean.num_classes)
    masks, patterns = reverse_masks(module, clean, settings, targets=targets, seed=seed)
    norms = masks.sum(dim=(1, 2, 3))
    return MaskInversion(
        masks=masks,
        patterns=patterns,
        norms=norms,
        success=_success(module, clean.images.flatten(0, 1), masks, patterns),
        indices=anomaly_indices(norms),
    )


def reverse_masks(
    module: nn.Module,
    clean: ClassImages,
    settings: MaskSettings,
    *,
    targets: Sequence[int],
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mask (t, 1, h, w) and a pattern (t, c, h, w) for each of the classes `targets` (t,).

    The trigger of a class is the mask of smallest norm among those that turned
    `success_threshold` of the images; where there was none, the last one. A class's trigger does
    not depend on which others are reversed beside it.
    """
    s = settings
    channels, height, width = clean.images.shape[2:]
    images, t = clean.images.flatten(0, 1), len(targets)
    mask = torch.full((t, 1, height, width), _INITIAL, requires_grad=True)
    pattern = torch.zeros((t, channels, height, width), requires_grad=True)
    # Betas as in the authors' code.
    optimizer = torch.optim.Adam([mask, pattern], lr=s.learning_rate, betas=(0.5, 0.9))
    schedule = _Schedule(s, t)
    best = _Best(mask, pattern)
    labels = torch.tensor(list(targets))
    generator = torch_generator(seed, "masks")
    for step in range(1, s.steps + 1):
        chosen = images[torch.randperm(len(images), generator=generator)[: s.batch_images]]
        optimizer.zero_grad()
        schedule.count(_backward(module, chosen, labels, mask, pattern, schedule.weight))
        if step % s.patience == 0:
            best.update(schedule.next(), mask, pattern)
        optimizer.step()
    return best.triggers(mask, pattern)


def _backward(
    module: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    pattern: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Add up the gradients of every target's loss; return the share of images turned (t,)."""
    turned = []
    for rows in torch.split(torch.arange(len(mask)), max(1, _CHUNK // len(images))):
        masks = mask[rows].sigmoid()
        logits = module(with_masks(images, masks, pattern[rows].sigmoid()))
        targets = labels[rows].repeat_interleave(len(images))
        loss = F.cross_entropy(logits, targets, reduction="sum") / len(images)
        norms = masks.sum(dim=(1, 2, 3))
        (loss + (weight[rows] * norms).sum()).backward()  # type: ignore[no-untyped-call]
        hits = logits.detach().argmax(dim=1) == targets
        turned.append(hits.view(len(rows), -1).float().mean(dim=1))
    return torch.cat(turned)


class _Schedule:
    """The weight of each class's norm."""

    def __init__(self, settings: MaskSettings, classes: int) -> None:
        self._settings = settings
        self.weight = torch.zeros(classes)
        self._turned = torch.zeros(classes)

    def count(self, success: torch.Tensor) -> None:
        self._turned += success / self._settings.patience

    def next(self) -> torch.Tensor:
        """Move on to the next steps; return which classes were reached in the last ones."""
        s = self._settings
        reached = self._turned >= s.success_threshold - 1e-6
        started = torch.where(reached, s.initial_weight, 0.0)
        factor = torch.where(reached, s.weight_factor, s.weight_factor**-1.5)
        self.weight = torch.where(self.weight == 0, started, self.weight * factor)
        self._turned = torch.zeros_like(self._turned)
        return reached


class _Best:
    """The smallest successful trigger of each class."""

    def __init__(self, mask: torch.Tensor, pattern: torch.Tensor) -> None:
        self._norms = torch.full((len(mask),), torch.inf)
        self._mask, self._pattern = mask.detach().clone(), pattern.detach().clone()

    def update(self, reached: torch.Tensor, mask: torch.Tensor, pattern: torch.Tensor) -> None:
        norms = mask.detach().sigmoid().sum(dim=(1, 2, 3))
        better = reached & (norms < self._norms)
        self._norms[better] = norms[better]
        self._mask[better] = mask.detach()[better]
        self._pattern[better] = pattern.detach()[better]

    def triggers(
        self, mask: torch.Tensor, pattern: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self._norms.isfinite()[:, None, None, None]
        chosen = torch.where(found, self._mask, mask.detach())
        colours = torch.where(found, self._pattern, pattern.detach())
        return chosen.sigmoid(), colours.sigmoid()


def with_masks(images: torch.Tensor, masks: torch.Tensor, patterns: torch.Tensor) -> torch.Tensor:
    """Return every image (n, c, h, w) with every one of t triggers, (t * n, c, h, w)."""
    stamped = images + masks[:, None] * (patterns[:, None] - images)
    return stamped.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _success(
    module: nn.Module, images: torch.Tensor, masks: torch.Tensor, patterns: torch.Tensor
) -> torch.Tensor:
    shares = []
    with torch.inference_mode():
        for label, (mask, pattern) in enumerate(zip(masks, patterns, strict=True)):
            logits = module(with_masks(images, mask[None], pattern[None]))
            shares.append((logits.argmax(dim=1) == label).float().mean())
    return torch.stack(shares)
