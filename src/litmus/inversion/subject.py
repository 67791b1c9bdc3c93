"""What an inversion in PyTorch works on: clean images by class, and a model's gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from litmus.datasets import Split
from litmus.errors import UsageError
from litmus.models import Gradients, InputSpec
from litmus.seeds import torch_generator

__all__ = ["ClassImages", "GradientModule"]


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """As many clean images of every class, float32 (k, n, c, h, w) in [0, 1]."""

    images: torch.Tensor

    @classmethod
    def draw(
        cls, split: Split, input_spec: InputSpec, *, per_class: int, seed: int = 0
    ) -> ClassImages:
        """Draw `per_class` images of every class without replacement.

        Raises UsageError where the images have another shape or a class has too few of them.
        """
        if tuple(split.images.shape[1:]) != input_spec.image_shape:
            raise UsageError(
                "the images have another shape than the model takes",
                expected=input_spec.image_shape,
                got=tuple(split.images.shape[1:]),
            )
        generator = torch_generator(seed, "class images")
        picked = []
        for label in range(input_spec.num_classes):
            members = split.of_class(label)
            if len(members) < per_class:
                raise UsageError(
                    f"too few clean images of class {label}", expected=per_class, got=len(members)
                )
            order = torch.randperm(len(members), generator=generator)[:per_class]
            picked.append(split.images[members[order]])
        return cls(images=torch.stack(picked).float() / 255)

    def split(self, count: int) -> tuple[ClassImages, ClassImages]:
        """Return the first `count` images of every class, and the others."""
        return ClassImages(images=self.images[:, :count]), ClassImages(
            images=self.images[:, count:]
        )

    def reordered(self, classes: Sequence[int]) -> ClassImages:
        """Return the images of these classes, in this order."""
        return ClassImages(images=self.images[list(classes)])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.images)

    @property
    def per_class(self) -> int:
        """The number of images of each class."""
        return self.images.shape[1]


class GradientModule(nn.Module):
    """The gradients of a model that is no PyTorch network, as one: images to logits (n, k)."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__()
        self._gradients = gradients

    def __deepcopy__(self, memo: dict[int, object]) -> GradientModule:
        """Return itself: nothing in it changes."""
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, through which gradients pass."""
        logits: torch.Tensor = _Through.apply(images, self._gradients)  # type: ignore[no-untyped-call]
        return logits


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, gradients: Gradients) -> torch.Tensor:
        ctx.save_for_backward(images)
        ctx.gradients = gradients
        return torch.from_numpy(gradients.logits(images.detach().contiguous().numpy()))

    @staticmethod
    def backward(ctx: Any, cotangents: torch.Tensor) -> tuple[torch.Tensor, None]:
        (images,) = ctx.saved_tensors
        found = ctx.gradients.pullback(
            images.detach().contiguous().numpy(), cotangents.contiguous().numpy()
        )
        return torch.from_numpy(found), None
