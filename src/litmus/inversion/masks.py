"""A mask and a pattern for every target class: Neural Cleanse (Wang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.checks import check_at_least
from litmus.errors import UsageError
from litmus.inversion.adam import Adam
from litmus.inversion.subject import ClassImages
from litmus.models import Gradients, Images
from litmus.seeds import Draws

__all__ = ["MaskInversion", "MaskSettings", "anomaly_indices", "invert_masks"]

_CHUNK: Final = 1024
"""Images in one forward and backward pass; each class is in one of them whole."""
_CONSISTENCY: Final = 1.4826
"""Makes the median absolute deviation an estimate of a normal's standard deviation."""
_ANOMALOUS: Final = 2.0
"""An index above this is an outlier with more than 95 % probability (Wang et al. 2019, IV.B)."""
_INITIAL: Final = -4.0
"""Masks start at sigmoid(-4), nearly transparent."""
_BETAS: Final = (0.5, 0.9)
"""Adam's, as in the authors' code."""


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

    masks: NDArray[np.float32]
    patterns: NDArray[np.float32]
    norms: NDArray[np.float64]
    success: NDArray[np.float64]
    indices: NDArray[np.float64]

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
    def trigger(self) -> NDArray[np.float32]:
        """The reversed trigger of the easiest class as a picture (c, h, w): pattern in mask."""
        picture: NDArray[np.float32] = self.masks[self.smallest] * self.patterns[self.smallest]
        return picture


def anomaly_indices(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |norm - median| over the scaled median absolute deviation (k,).

    Where more than half of the norms are equal, the deviation is taken as 1e-9 of a pixel.
    """
    deviation = np.abs(norms - np.median(norms))
    indices: NDArray[np.float64] = deviation / max(_CONSISTENCY * float(np.median(deviation)), 1e-9)
    return indices


def invert_masks(
    model: Gradients, clean: ClassImages, settings: MaskSettings, *, seed: int = 0
) -> MaskInversion:
    """Reverse a trigger for every target class, all classes in one batch.

    The trigger of a class is the mask of smallest norm among those that turned
    `success_threshold` of the images; where there was none, the last one. A class's trigger does
    not depend on the others.
    """
    masks, patterns = _reversed(model, clean, settings, seed)
    norms = _norms(masks)
    return MaskInversion(
        masks=masks,
        patterns=patterns,
        norms=norms,
        success=_success(model, clean.flat, masks, patterns),
        indices=anomaly_indices(norms),
    )


def _reversed(
    model: Gradients, clean: ClassImages, s: MaskSettings, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return every class's mask (k, 1, h, w) and pattern (k, c, h, w)."""
    images, k = clean.flat, clean.num_classes
    mask = np.full((k, 1, *images.shape[2:]), _INITIAL, np.float32)
    pattern = np.zeros((k, *images.shape[1:]), np.float32)
    mask_adam, pattern_adam = Adam(mask, betas=_BETAS), Adam(pattern, betas=_BETAS)
    schedule, best = _Schedule(s, k), _Best(mask, pattern)
    draws = Draws(seed, "masks")
    for step in range(1, s.steps + 1):
        chosen = images[draws.permutation(len(images))[: s.batch_images]]
        turned, to_mask, to_pattern = _gradients(model, chosen, mask, pattern, schedule.weight)
        schedule.count(turned)
        if step % s.patience == 0:
            best.update(schedule.next(), mask, pattern)
        mask_adam.step(mask, to_mask, s.learning_rate)
        pattern_adam.step(pattern, to_pattern, s.learning_rate)
    return best.triggers(mask, pattern)


def _gradients(
    model: Gradients,
    images: Images,
    mask: NDArray[np.float32],
    pattern: NDArray[np.float32],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """Return the share of images turned (k,), and the loss's gradients to mask and pattern.

    Both are given before the sigmoid. A class's loss is the mean cross-entropy towards it plus its
    weight times the mask's norm.
    """
    turned, to_mask, to_pattern = np.empty(len(mask)), np.empty_like(mask), np.empty_like(pattern)
    group = max(1, _CHUNK // len(images))
    for start in range(0, len(mask), group):
        rows = slice(start, start + group)
        masks, colours = _sigmoid(mask[rows]), _sigmoid(pattern[rows])
        targets = np.repeat(np.arange(len(mask))[rows], len(images))
        logits, back = model.descend(_with_masks(images, masks, colours), targets)
        turned[rows] = (logits.argmax(axis=1) == targets).reshape(len(masks), -1).mean(axis=1)
        # x + m (p - x) goes back as p - x to the mask, as m to the pattern.
        back = back.reshape(len(masks), *images.shape) / np.float32(len(images))
        summed = back.sum(axis=1)
        through = colours * summed - np.einsum("tbchw,bchw->tchw", back, images)
        to_norm = weight[rows, None, None, None].astype(np.float32)
        slope = through.sum(axis=1, keepdims=True) + to_norm
        to_mask[rows] = slope * masks * (1 - masks)
        to_pattern[rows] = summed * masks * colours * (1 - colours)
    return turned, to_mask, to_pattern


class _Schedule:
    """The weight of each class's norm."""

    def __init__(self, settings: MaskSettings, classes: int) -> None:
        self._settings = settings
        self.weight = np.zeros(classes)
        self._turned = np.zeros(classes)

    def count(self, success: NDArray[np.float64]) -> None:
        self._turned += success / self._settings.patience

    def next(self) -> NDArray[np.bool_]:
        """Move on to the next steps; return which classes were reached in the last ones."""
        s = self._settings
        reached = self._turned >= s.success_threshold - 1e-6
        started = np.where(reached, s.initial_weight, 0.0)
        factor = np.where(reached, s.weight_factor, s.weight_factor**-1.5)
        self.weight = np.where(self.weight == 0, started, self.weight * factor)
        self._turned = np.zeros_like(self._turned)
        return reached


class _Best:
    """The smallest successful trigger of each class."""

    def __init__(self, mask: NDArray[np.float32], pattern: NDArray[np.float32]) -> None:
        self._least = np.full(len(mask), np.inf)
        self._mask, self._pattern = mask.copy(), pattern.copy()

    def update(
        self,
        reached: NDArray[np.bool_],
        mask: NDArray[np.float32],
        pattern: NDArray[np.float32],
    ) -> None:
        norms = _norms(_sigmoid(mask))
        better = reached & (norms < self._least)
        self._least[better] = norms[better]
        self._mask[better] = mask[better]
        self._pattern[better] = pattern[better]

    def triggers(
        self, mask: NDArray[np.float32], pattern: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = np.isfinite(self._least)[:, None, None, None]
        chosen = np.where(found, self._mask, mask)
        return _sigmoid(chosen), _sigmoid(np.where(found, self._pattern, pattern))


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp(100) is infinite in float32, and 1 / that is 0
        result: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-values))
    return result


def _norms(masks: NDArray[np.float32]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = masks.sum(axis=(1, 2, 3), dtype=np.float64)
    return norms


def _with_masks(
    images: Images, masks: NDArray[np.float32], patterns: NDArray[np.float32]
) -> Images:
    """Return every image (n, c, h, w) with every one of t triggers, (t * n, c, h, w)."""
    stamped = images + masks[:, None] * (patterns[:, None] - images)
    return stamped.reshape(-1, *images.shape[1:])


def _success(
    model: Gradients,
    images: Images,
    masks: NDArray[np.float32],
    patterns: NDArray[np.float32],
) -> NDArray[np.float64]:
    shares = []
    for label, (mask, pattern) in enumerate(zip(masks, patterns, strict=True)):
        logits = model.logits(_with_masks(images, mask[None], pattern[None]))
        shares.append((logits.argmax(axis=1) == label).mean())
    return np.array(shares)
