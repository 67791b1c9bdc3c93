"""What an inversion works on: clean images by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.models import Images, InputSpec
from litmus.seeds import Draws

if TYPE_CHECKING:
    from litmus.datasets import Split

__all__ = ["ClassImages"]


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """As many clean images of every class, float32 (k, n, c, h, w) in [0, 1]."""

    images: NDArray[np.float32]

    @classmethod
    def draw(
        cls, split: Split, input_spec: InputSpec, *, per_class: int, seed: int = 0
    ) -> ClassImages:
        """Draw `per_class` images of every class without replacement.

        Raises UsageError where the images have another shape or a class has too few of them.
        """
        # Tensors go in here; `Split` alone knows them.
        pixels, labels = np.asarray(split.images), np.asarray(split.labels)
        _check_shape(pixels.shape[1:], input_spec)
        draws = Draws(seed, "class images")
        picked = []
        for label in range(input_spec.num_classes):
            members = np.flatnonzero(labels == label)
            _check_count(len(members), per_class, label)
            picked.append(pixels[members[draws.permutation(len(members))[:per_class]]])
        return cls(images=np.stack(picked).astype(np.float32) / np.float32(255))

    @classmethod
    def first(cls, images: Images, input_spec: InputSpec, *, per_class: int) -> ClassImages:
        """Take the first `per_class` of each class's images (k, n, c, h, w) in [0, 1].

        Raises UsageError where they have another shape or are too few.
        """
        if images.ndim != 5 or len(images) != input_spec.num_classes:
            raise UsageError(
                "the images are not those of every class",
                expected=f"({input_spec.num_classes}, n, c, h, w)",
                got=images.shape,
            )
        _check_shape(images.shape[2:], input_spec)
        _check_count(images.shape[1], per_class, 0)
        return cls(images=np.ascontiguousarray(images[:, :per_class], dtype=np.float32))

    @property
    def flat(self) -> Images:
        """All images, (k * n, c, h, w)."""
        return self.images.reshape(-1, *self.images.shape[2:])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.images)

    @property
    def per_class(self) -> int:
        """The number of images of each class."""
        return int(self.images.shape[1])


def _check_shape(shape: tuple[int, ...], input_spec: InputSpec) -> None:
    if tuple(shape) != input_spec.image_shape:
        raise UsageError(
            "the images have another shape than the model takes",
            expected=input_spec.image_shape,
            got=tuple(shape),
        )


def _check_count(count: int, per_class: int, label: int) -> None:
    if count < per_class:
        raise UsageError(f"too few clean images of class {label}", expected=per_class, got=count)
