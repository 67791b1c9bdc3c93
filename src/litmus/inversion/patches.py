"""Universal patches for pairs of classes: the paper's attack-based baseline (3.4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError
from litmus.inversion.adam import Adam
from litmus.inversion.places import PLACES
from litmus.inversion.search import cross_entropy
from litmus.inversion.subject import ClassImages
from litmus.models import Gradients, Images
from litmus.seeds import Draws

__all__ = ["PatchInversion", "PatchSettings", "all_pairs", "invert_patches"]

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

    losses: NDArray[np.float64]
    source_class: int
    target_class: int
    patch: NDArray[np.float32]
    success: float

    @property
    def loss(self) -> float:
        """The loss of the most successful pair; the lower, the more suspicious."""
        return float(self.losses[self.source_class, self.target_class])


def all_pairs(num_classes: int) -> list[tuple[int, int]]:
    """Return every pair of a source and another, target class."""
    return list(permutations(range(num_classes), 2))


def invert_patches(
    model: Gradients,
    clean: ClassImages,
    settings: PatchSettings,
    *,
    seed: int = 0,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> PatchInversion:
    """Optimise a universal patch for every pair of source and target class (or for `pairs`).

    All pairs go through the model together. At a step they share the draw of images within a
    class and of places, so that a pair's patch does not depend on which others are optimised
    beside it.
    """
    k = clean.num_classes
    search = _Search(model, clean, settings, seed)
    chosen, patches = search.run(np.array(pairs or all_pairs(k)))
    final, success = search.evaluate(chosen, patches)
    losses = np.full((k, k), np.inf)
    losses[chosen[:, 0], chosen[:, 1]] = final
    best = int(final.argmin())
    return PatchInversion(
        losses=losses,
        source_class=int(chosen[best, 0]),
        target_class=int(chosen[best, 1]),
        patch=patches[best].copy(),
        success=float(success[best]),
    )


class _Search:
    def __init__(
        self, model: Gradients, clean: ClassImages, settings: PatchSettings, seed: int
    ) -> None:
        self.model, self.clean, self.settings, self.seed = model, clean, settings, seed
        channels, self.height, self.width = clean.images.shape[2:]
        self.patch_shape = (channels, settings.size, settings.size)

    def run(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the pairs (p, 2) that were never dropped, and their patches (p, c, s, s)."""
        s = self.settings
        patches = np.full((len(pairs), *self.patch_shape), 0.5, np.float32)
        adam, running, rungs = Adam(patches), np.zeros(len(pairs)), set(s.rungs())
        for step in range(1, s.steps + 1):
            stamps = _Stamps(*self._draw(step, s.batch_images), s.size)
            gradients, losses = self._gradients(pairs, patches, stamps)
            running = losses if step == 1 else running + (1 - _SMOOTHING) * (losses - running)
            adam.step(patches, gradients, s.learning_rate)
            np.clip(patches, 0, 1, out=patches)
            if step in rungs:
                best = np.argsort(running, kind="stable")[: math.ceil(len(pairs) * s.keep)]
                kept = np.sort(best)
                pairs, patches, running = pairs[kept], patches[kept], running[kept]
                adam.keep(kept)
        return pairs, patches

    def evaluate(
        self, pairs: NDArray[np.int64], patches: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean loss and success (p,) on all of the source's images."""
        losses, success = np.empty(len(pairs)), np.empty(len(pairs))
        count = self.clean.per_class
        stamps = _Stamps(np.arange(count), self._draw(0, count)[1], self.settings.size)
        for part in self._parts(len(pairs), count):
            images = stamps.stamp(self.clean.images[pairs[part, 0]], patches[part])
            targets = np.repeat(pairs[part, 1], count)
            logits = self.model.logits(images.reshape(-1, *images.shape[2:]))
            losses[part] = cross_entropy(logits, targets).reshape(-1, count).mean(axis=1)
            hits = logits.argmax(axis=1) == targets
            success[part] = hits.reshape(-1, count).mean(axis=1)
        return losses, success

    def _draw(self, step: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of a class's images are used, and where the patch lies on each."""
        draws = Draws(self.seed, "inversion", step)
        index = draws.permutation(self.clean.per_class)[:count]
        place = PLACES[self.settings.place]
        return index, place(len(index), self.height, self.width, self.settings.size, draws)

    def _gradients(
        self, pairs: NDArray[np.int64], patches: NDArray[np.float32], stamps: _Stamps
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return each patch's gradient of its pair's mean loss (p, c, s, s), and the losses."""
        gradients, losses = np.empty_like(patches), np.empty(len(pairs))
        count = len(stamps.index)
        for part in self._parts(len(pairs), count):
            images = stamps.stamp(self.clean.images[pairs[part, 0]], patches[part])
            targets = np.repeat(pairs[part, 1], count)
            logits, back = self.model.descend(images.reshape(-1, *images.shape[2:]), targets)
            losses[part] = cross_entropy(logits, targets).reshape(-1, count).mean(axis=1)
            gradients[part] = stamps.collect(back.reshape(images.shape)) / count
        return gradients, losses

    @staticmethod
    def _parts(pairs: int, images: int) -> list[slice]:
        size = max(1, _CHUNK // images)
        return [slice(start, start + size) for start in range(0, pairs, size)]


class _Stamps:
    """Which b images of a class bear a patch, `index` (b,), and where, by `places` (b, 2)."""

    def __init__(self, index: NDArray[np.int64], places: NDArray[np.int64], size: int) -> None:
        self.index = index
        offsets = np.arange(size)
        self._which = np.arange(len(index))[:, None, None]
        self._rows = (places[:, :1] + offsets)[:, :, None]
        self._columns = (places[:, 1:] + offsets)[:, None, :]

    def stamp(self, images: Images, patches: NDArray[np.float32]) -> Images:
        """Return those of images (p, n, c, h, w) with a patch (p, c, s, s), (p, b, c, h, w)."""
        stamped = images[:, self.index]
        # Indexed axes come first: (b, s, s, p, c).
        stamped[:, self._which, :, self._rows, self._columns] = patches.transpose(2, 3, 0, 1)
        return stamped

    def collect(self, gradients: Images) -> NDArray[np.float32]:
        """Return the sum (p, c, s, s) of the gradients (p, b, c, h, w) that reach a patch."""
        found = gradients[:, self._which, :, self._rows, self._columns]
        summed: NDArray[np.float32] = found.sum(axis=0).transpose(2, 3, 0, 1)
        return summed
