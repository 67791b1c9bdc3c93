"""Universal patches for pairs of classes: the paper's attack-based baseline (3.4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import nn

from litmus.attacks.places import PLACES
from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError
from litmus.inversion.subject import ClassImages
from litmus.seeds import torch_generator

__all__ = ["PatchInversion", "PatchSettings", "all_pairs", "invert_patches", "with_patch"]

_CHUNK: Final = 512
"""Images in one forward and backward pass."""
_SMOOTHING: Final = 0.8
"""Of the running loss by which pairs are dropped: it looks back about five steps."""


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """How universal patches are optimised.

    A patch of `size` pixels, known to the defender, lies at a random place of each image. Every
    pair of classes gets up to `steps` steps of Adam on `batch_images` images of the source. With
    `keep` below 1, successive halving (Jamieson and Talwalkar 2016) drops all but that share of
    the pairs at the end of each rung; a rung is 1 / `keep` times as long as the one before, and
    the last pairs get all steps.
    """

    size: int = 5
    place: Literal["corner", "anywhere", "surface"] = "corner"
    images_per_class: int = 32
    batch_images: int = 8
    steps: int = 100
    learning_rate: float = 0.1
    keep: float = 1 / 3
    first_rung: int = 4

    def __post_init__(self) -> None:
        check_at_least(self, size=1, images_per_class=1, batch_images=1, steps=1, first_rung=1)
        if not 0 < self.keep <= 1:
            raise UsageError("keep is impossible", expected="0 < keep <= 1", got=self.keep)
        check_choices(self, place=PLACES)

    def rungs(self) -> list[int]:
        """Return the steps after which pairs are dropped, the last one excepted."""
        if self.keep == 1:
            return []
        ends, end = [], float(self.first_rung)
        while round(end) < self.steps:
            ends.append(round(end))
            end /= self.keep
        return ends

    def pair_steps(self, pairs: int) -> int:
        """Return the number of steps that all pairs take together."""
        total, before = 0, 0
        for end in [*self.rungs(), self.steps]:
            total += pairs * (end - before)
            pairs, before = math.ceil(pairs * self.keep), end
        return total


@dataclass(frozen=True, kw_only=True)
class PatchInversion:
    """What the search found.

    `losses` (k, k) by source and target is the mean cross-entropy towards the target over all of
    the source's images, infinite on the diagonal and for pairs that were dropped. `patch`
    (c, size, size) is that of the most successful pair, `success` the share of the source's
    images that it turns.
    """

    losses: torch.Tensor
    source_class: int
    target_class: int
    patch: torch.Tensor
    success: float

    @property
    def loss(self) -> float:
        """The loss of the most successful pair; the lower, the more suspicious."""
        return float(self.losses[self.source_class, self.target_class])


def all_pairs(num_classes: int) -> list[tuple[int, int]]:
    """Return every pair of a source and another, target class."""
    return list(permutations(range(num_classes), 2))


def with_patch(
    images: torch.Tensor, patch: torch.Tensor, settings: PatchSettings, *, seed: int = 0
) -> torch.Tensor:
    """Return images (n, c, h, w) with a patch (c, size, size), each at a place of its own."""
    size, stamped = settings.size, images.clone()
    n, _, height, width = images.shape
    generator = torch_generator(seed, "places")
    places = PLACES[settings.place](n, height, width, size, generator)
    for image, (row, column) in zip(stamped, places.tolist(), strict=True):
        image[:, row : row + size, column : column + size] = patch
    return stamped


def invert_patches(
    module: nn.Module,
    clean: ClassImages,
    settings: PatchSettings,
    *,
    seed: int = 0,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> PatchInversion:
    """Optimise a universal patch for every pair of source and target class (or for `pairs`).

    All pairs go through the module together. At a step they share the draw of images within a
    class and of places, so that a pair's patch does not depend on which others are optimised
    beside it.
    """
    k = clean.num_classes
    search = _Search(module, clean, settings, seed)
    chosen = torch.tensor(pairs or all_pairs(k))
    chosen, patches = search.run(chosen)
    final, success = search.evaluate(chosen, patches)
    losses = torch.full((k, k), torch.inf)
    losses[chosen[:, 0], chosen[:, 1]] = final
    best = int(final.argmin())
    return PatchInversion(
        losses=losses,
        source_class=int(chosen[best, 0]),
        target_class=int(chosen[best, 1]),
        patch=patches[best].clone(),
        success=float(success[best]),
    )


class _Search:
    def __init__(
        self, module: nn.Module, clean: ClassImages, settings: PatchSettings, seed: int
    ) -> None:
        self.module, self.clean, self.settings, self.seed = module, clean, settings, seed
        channels, self.height, self.width = clean.images.shape[2:]
        self.patch_shape = (channels, settings.size, settings.size)

    def run(self, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pairs (p, 2) that were never dropped, and their patches (p, c, s, s)."""
        s = self.settings
        patches = torch.full((len(pairs), *self.patch_shape), 0.5)
        state = torch.zeros(2, *patches.shape)
        running = torch.zeros(len(pairs))
        rungs = set(s.rungs())
        for step in range(1, s.steps + 1):
            index, places = self._draw(step, s.batch_images)
            gradients, losses = self._gradients(pairs, patches, index, places)
            running = losses if step == 1 else running.lerp(losses, 1 - _SMOOTHING)
            _adam(patches, gradients, state, step, s.learning_rate)
            if step in rungs:
                kept = running.argsort()[: math.ceil(len(pairs) * s.keep)].sort().values
                pairs, patches, running = pairs[kept], patches[kept], running[kept]
                state = state[:, kept]
        return pairs, patches

    def evaluate(
        self, pairs: torch.Tensor, patches: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean loss and success (p,) on all of the source's images."""
        index = torch.arange(self.clean.per_class)
        _, places = self._draw(0, len(index))
        losses, successes = [], []
        with torch.inference_mode():
            for part, patch in self._chunks(pairs, patches, len(index)):
                logits = self.module(self._stamped(part, patch, index, places))
                targets = part[:, 1].repeat_interleave(len(index))
                loss = F.cross_entropy(logits, targets, reduction="none")
                losses.append(loss.view(len(part), -1).mean(dim=1))
                hits = (logits.argmax(dim=1) == targets).float()
                successes.append(hits.view(len(part), -1).mean(dim=1))
        return torch.cat(losses), torch.cat(successes)

    def _draw(self, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of a class's images are used, and where the patch lies on each."""
        generator = torch_generator(self.seed, "inversion", step)
        index = torch.randperm(self.clean.per_class, generator=generator)[:count]
        place = PLACES[self.settings.place]
        return index, place(len(index), self.height, self.width, self.settings.size, generator)

    def _gradients(
        self,
        pairs: torch.Tensor,
        patches: torch.Tensor,
        index: torch.Tensor,
        places: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each patch's gradient of its pair's mean loss (p, c, s, s), and the losses."""
        gradients, losses = [], []
        for part, chunk in self._chunks(pairs, patches, len(index)):
            patch = chunk.detach().requires_grad_(True)
            logits = self.module(self._stamped(part, patch, index, places))
            targets = part[:, 1].repeat_interleave(len(index))
            loss = F.cross_entropy(logits, targets, reduction="none").view(len(part), -1).mean(1)
            # The sum's gradient is each pair's own: no patch is in another pair's loss.
            gradients.append(torch.autograd.grad(loss.sum(), patch)[0])
            losses.append(loss.detach())
        return torch.cat(gradients), torch.cat(losses)

    def _chunks(
        self, pairs: torch.Tensor, patches: torch.Tensor, images: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        size = max(1, _CHUNK // images)
        return list(zip(torch.split(pairs, size), torch.split(patches, size), strict=True))

    def _stamped(
        self,
        pairs: torch.Tensor,
        patches: torch.Tensor,
        index: torch.Tensor,
        places: torch.Tensor,
    ) -> torch.Tensor:
        """Return the sources' images with their pair's patch, (p * b, c, h, w)."""
        images = self.clean.images[pairs[:, 0]][:, index]
        offsets = torch.arange(self.settings.size)
        rows = (places[:, :1] + offsets)[:, :, None]
        columns = (places[:, 1:] + offsets)[:, None, :]
        which = torch.arange(len(index))[:, None, None]
        # Indexed axes come first: (b, s, s, p, c).
        images[:, which, :, rows, columns] = patches.permute(2, 3, 0, 1)
        return images.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _adam(
    patches: torch.Tensor, gradients: torch.Tensor, state: torch.Tensor, step: int, rate: float
) -> None:
    """One step of Adam in place, back into [0, 1]; here because pairs leave and take their state
    with them."""
    first, second = state
    first.lerp_(gradients, 0.1)
    second.lerp_(gradients.square(), 0.001)
    mean = first / (1 - 0.9**step)
    scale = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
    patches.sub_(rate * mean / scale).clamp_(0, 1)
