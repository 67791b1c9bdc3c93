"""What detectors by trigger inversion share: clean images, what is found, heads that read it."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Measurement
from litmus.detectors.effort import Effort
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import ModelError, UsageError
from litmus.models import Gradients, Images, Model

if TYPE_CHECKING:
    from litmus.datasets import Split
    from litmus.inversion import ClassImages

__all__ = ["InversionDetector"]

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class InversionDetector(StatisticDetector, Generic[Found]):
    """A detector that optimises triggers on clean images.

    A subclass has `search`, `read` and `raw_score`. `clean` are the images, given by `with_images`
    and never stored in a file. The head learns from a zoo how much evidence there is in what
    `read` returns; an uncalibrated detector, which needs no zoo, gives the `raw_score`, as its
    authors do.
    """

    needs_zoo: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    takes_images: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    effort: ClassVar[Effort] = "thorough"
    monotone: ClassVar[bool] = True
    num_models: ClassVar[int] = 20

    clean: ClassImages | None = field(default=None, repr=False)

    @classmethod
    @abstractmethod
    def settings_type(cls) -> type[Any]:
        """Return the dataclass of the inversion's settings."""

    @abstractmethod
    def search(self, model: Gradients, clean: ClassImages) -> Found:
        """Invert triggers of a network."""

    @abstractmethod
    def read(self, found: Found) -> NDArray[np.float64]:
        """Return the numbers of `statistic_names`, (f,): the larger, the more suspicious."""

    @abstractmethod
    def raw_score(self, found: Found) -> float:
        """Return the one number by which the method's authors judge."""

    @property
    def lacks_images(self) -> bool:
        """Whether `with_images` has not given any."""
        return self.clean is None

    def with_images(self, images: Split | Images, *, seed: int = 0) -> Self:
        """Return the detector with clean images, drawn from a split of uint8 images.

        Of an array (k, n, c, h, w) in [0, 1], by class, the first ones are taken.
        Raises UsageError where they have another shape or a class has too few of them.
        """
        from litmus.inversion import ClassImages

        per_class = self._full_settings()["images_per_class"]
        if isinstance(images, np.ndarray):
            clean = ClassImages.first(images, self.input_spec, per_class=per_class)
        else:
            clean = ClassImages.draw(images, self.input_spec, per_class=per_class, seed=seed)
        return replace(self, clean=clean)

    def measure(self, model: Model) -> Measurement:
        """Invert triggers and let each member judge; without members, return the raw score.

        Raises UnsupportedModelError where there is no gradient.
        """
        if self.heads:
            return super().measure(model)
        with np.errstate(all="ignore"):  # what is no number is an error below
            score = self.raw_score(self.invert(model))
        if not np.isfinite(score):
            raise ModelError("the model's outputs are not numbers", got="NaN or infinity")
        return Measurement(member_scores=[score], scope_distance=0.0)

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return what `read` makes of the inversion."""
        return self.read(self.invert(model))

    def invert(self, model: Model) -> Found:
        """Return all that the inversion found; raises ModelError where there is no gradient."""
        if self.clean is None:
            raise UsageError(f"{self.name} needs clean images", expected="with_images(split)")
        gradients = self.gradients_of(model)
        self.check_shape(model)
        return self.search(gradients, self.clean)

    def _key(self) -> dict[str, Any]:
        assert self.clean is not None
        pixels = self.clean.images.tobytes()
        return {**super()._key(), "images": hashlib.sha256(pixels).hexdigest()}

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in full; raises UsageError for an unknown or impossible one."""
        return cls.resolved(cls.settings_type(), options)

    def _full_settings(self) -> dict[str, Any]:
        """The settings, which a file may have wrong: they are looked at where they are used."""
        return self.resolve(self.settings)
