"""What `litmus explain` shows: reversed triggers, and what they do to images held back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import torch
from torch import nn

from litmus.datasets.clean import load_named_images
from litmus.errors import UsageError
from litmus.inversion.masks import MaskSettings, reverse_masks, with_masks
from litmus.inversion.patches import PatchSettings, all_pairs, invert_patches, with_patch
from litmus.inversion.subject import ClassImages
from litmus.matching import assign
from litmus.models import InputSpec

__all__ = ["CleanImages", "Effect", "ReversedMask", "ReversedPatch", "explain_mask", "explain_pair"]

_FIT: Final = 24
"""Images of each class to optimise on; half of what there is where that is less."""
_HELD_OUT: Final = 60
_LEAST: Final = 4
_MOST_READ: Final = 200
_MOST_VALUES: Final = 2**28
"""Of all images together: 1 GiB of floats."""
_CHUNK: Final = 512
_SMALL: Final = 64 * 64  # pixels
_EXAMPLES: Final = 3


@dataclass(frozen=True, kw_only=True)
class CleanImages:
    """Clean images to optimise on, others of the same classes to count flips on, and their names.

    Classes stand in the order of the folders, or in a model's: see `matched`.
    """

    fit: ClassImages
    held_out: ClassImages
    names: tuple[str, ...]

    @classmethod
    def load(cls, source: str | Path, input_spec: InputSpec, *, seed: int = 0) -> Self:
        """Load images as `load_named_images` does; raises UsageError where a class has too few."""
        values = math.prod(input_spec.image_shape) * input_spec.num_classes
        most = max(_LEAST, min(_MOST_READ, _MOST_VALUES // values))
        names, split = load_named_images(source, input_spec, per_class=most)
        counts = [len(split.of_class(label)) for label in range(input_spec.num_classes)]
        if min(counts) < _LEAST:
            label = counts.index(min(counts))
            raise UsageError(
                f"too few clean images of class {names[label]}",
                expected=f"at least {_LEAST}: half to optimise on, half to check with",
                got=counts[label],
                where="--images",
            )
        fit = min(_FIT, min(counts) // 2)
        drawn = ClassImages.draw(
            split, input_spec, per_class=min(fit + _HELD_OUT, min(counts)), seed=seed
        )
        first, others = drawn.split(fit)
        return cls(fit=first, held_out=others, names=names)

    def matched(self, module: nn.Module) -> tuple[CleanImages, int, int]:
        """Return the images in the order of a model's outputs, and how many it has right of all.

        Each output gets the class that it is given most often, each class one output.
        """
        images = torch.cat([self.fit.images, self.held_out.images], dim=1)
        k, n = images.shape[:2]
        answers = _answers(module, images.flatten(0, 1)).view(k, n)
        counts = torch.stack([torch.bincount(row, minlength=k) for row in answers]).double()
        output_of = assign(counts.numpy())
        order = torch.from_numpy(output_of).argsort().tolist()
        matched = replace(
            self,
            fit=self.fit.reordered(order),
            held_out=self.held_out.reordered(order),
            names=tuple(self.names[i] for i in order),
        )
        right = int(sum(counts[i, output] for i, output in enumerate(output_of)))
        return matched, right, k * n


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a trigger does to the `images` held back that a model does not call the target anyway.

    `turned` of them become the target; `before` (e, c, h, w) are some, turned ones first, `after`
    the same with the trigger, and `answers` (e, 2) what the model says of both.
    """

    images: int
    turned: int
    before: torch.Tensor
    after: torch.Tensor
    answers: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class ReversedMask:
    """A trigger for images of any class: mask (1, h, w) and pattern (c, h, w), both in [0, 1]."""

    target_class: int
    mask: torch.Tensor
    pattern: torch.Tensor
    effect: Effect


@dataclass(frozen=True, kw_only=True)
class ReversedPatch:
    """A patch (c, size, size) for images of one class: of all pairs the one that it fits best."""

    source_class: int
    target_class: int
    patch: torch.Tensor
    effect: Effect


def explain_mask(
    module: nn.Module,
    clean: CleanImages,
    settings: MaskSettings,
    *,
    targets: Sequence[int],
    seed: int = 0,
) -> Iterator[ReversedMask]:
    """Yield the reversed trigger of each target class (Neural Cleanse), and its effect."""
    masks, patterns = reverse_masks(module, clean.fit, settings, targets=targets, seed=seed)
    images = clean.held_out.images.flatten(0, 1)
    before = _answers(module, images)
    for target, mask, pattern in zip(targets, masks, patterns, strict=True):
        stamped = with_masks(images, mask[None], pattern[None])
        yield ReversedMask(
            target_class=target,
            mask=mask,
            pattern=pattern,
            effect=_effect(module, images, before, stamped, target),
        )


def explain_pair(
    module: nn.Module,
    clean: CleanImages,
    settings: PatchSettings,
    *,
    targets: Sequence[int],
    seed: int = 0,
) -> ReversedPatch:
    """Return the patch that leads a class's images to a target best (the paper's baseline)."""
    pairs = [pair for pair in all_pairs(clean.fit.num_classes) if pair[1] in set(targets)]
    found = invert_patches(module, clean.fit, settings, seed=seed, pairs=pairs)
    images = clean.held_out.images[found.source_class]
    stamped = with_patch(images, found.patch, settings, seed=seed)
    before = _answers(module, images)
    return ReversedPatch(
        source_class=found.source_class,
        target_class=found.target_class,
        patch=found.patch,
        effect=_effect(module, images, before, stamped, found.target_class),
    )


def _effect(
    module: nn.Module,
    images: torch.Tensor,
    before: torch.Tensor,
    stamped: torch.Tensor,
    target: int,
) -> Effect:
    after = _answers(module, stamped)
    others = before != target
    turned = others & (after == target)
    count = _EXAMPLES if images[0, 0].numel() <= _SMALL else 1
    # Spread over the images, and so over their classes.
    shown = _spread(turned, count) if turned.any() else _spread(others, count)
    return Effect(
        images=int(others.sum()),
        turned=int(turned.sum()),
        before=images[shown],
        after=stamped[shown],
        answers=torch.stack([before[shown], after[shown]], dim=1),
    )


def _spread(chosen: torch.Tensor, count: int) -> torch.Tensor:
    found = torch.nonzero(chosen).flatten()
    return found[torch.linspace(0, max(0, len(found) - 1), min(count, len(found))).long()]


def _answers(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the class that a model gives each image (n,)."""
    with torch.inference_mode():
        parts = [module(part).argmax(dim=1) for part in torch.split(images, _CHUNK)]
    return torch.cat(parts)
