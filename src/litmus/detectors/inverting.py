"""What detectors by trigger inversion share: clean images, a network's gradients, calibration."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Detector, Measurement
from litmus.detectors.calibration import UNCALIBRATED, calibrate, fit_offset
from litmus.errors import DetectorError, ModelError, UsageError
from litmus.models import InputSpec, Model

if TYPE_CHECKING:
    from torch import nn

    from litmus.datasets import Split
    from litmus.inversion import ClassImages
    from litmus.zoo import Zoo, ZooEntry

__all__ = ["InversionDetector"]

Found = TypeVar("Found")

_MODELS: Final = 20
"""Of each kind, to calibrate on."""


@dataclass(frozen=True, kw_only=True)
class InversionDetector(Detector, Generic[Found]):
    """A detector that optimises triggers on clean images; nothing is learned from a zoo.

    `settings` are the inversion's hyperparameters in full. `clean` are the images, given by
    `with_images` and never stored in a file. The score is the raw statistic minus `offset`, which
    puts 0 between the clean and the backdoored models that `fit` was calibrated on.
    """

    needs_zoo: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    settings: Mapping[str, Any]
    offset: float = 0.0
    clean: ClassImages | None = field(default=None, repr=False)

    @classmethod
    def uncalibrated(cls, input_spec: InputSpec, **options: Any) -> Self:
        """Return a detector that scores but can't judge; `options` replace default settings."""
        return cls(
            input_spec=input_spec,
            settings=cls.resolve(options),
            calibration=UNCALIBRATED,
            scope={},
            held_out={},
        )

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        *,
        images: Split | None = None,
        models: int = _MODELS,
        seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        **settings: Any,
    ) -> Self:
        """Calibrate on a zoo: score `models` clean and as many backdoored training models.

        `images` are clean ones, by default the test images of the zoo's data set. Raises
        ZooError where there are too few models, UsageError for an impossible setting.
        """
        if models < 1:
            raise UsageError("too few models to calibrate on", expected=">= 1", got=models)
        entries = _balanced(zoo.split("train"), models)
        detector = cls.uncalibrated(zoo.input_spec, **settings).with_images(
            zoo.load_dataset().test if images is None else images, seed=seed
        )
        raw = []
        for done, entry in enumerate(entries, start=1):
            raw.append(detector._score_file(entry))
            on_progress(done, len(entries))
        return detector._calibrated(zoo, entries, np.array(raw), seed)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the number of models to calibrate on, and the inversion's settings."""
        return {"models": _MODELS, **cls.resolve({})}

    def _score_file(self, entry: ZooEntry) -> float:
        from litmus.formats import zoo_file

        return self.score(zoo_file.load(entry.path))

    def _calibrated(
        self, zoo: Zoo, entries: Sequence[ZooEntry], raw: NDArray[np.float64], seed: int
    ) -> Self:
        from litmus.fitting import describe_scope, held_out_auc

        backdoored = np.array([entry.backdoored for entry in entries])
        offset = fit_offset(raw, backdoored)
        zeros = np.zeros(len(raw))
        return replace(
            self,
            offset=offset,
            calibration=calibrate(raw - offset, zeros, backdoored, zeros),
            scope=describe_scope(zoo, entries, self.settings, seed),
            held_out=held_out_auc(raw - offset, entries, seed),
        )

    def with_images(self, images: Split, *, seed: int = 0) -> Self:
        """Return the detector with clean images, drawn from a split of uint8 images.

        Raises UsageError where they have another shape or a class has too few of them.
        """
        from litmus.inversion import ClassImages

        per_class = self.settings["images_per_class"]
        drawn = ClassImages.draw(images, self.input_spec, per_class=per_class, seed=seed)
        return replace(self, clean=drawn)

    def measure(self, model: Model) -> Measurement:
        """Invert triggers and return the score; raises ModelError where there is no gradient."""
        score = self.statistic(self.invert(model)) - self.offset
        if not np.isfinite(score):
            raise ModelError("the model's outputs are not numbers", got="NaN or infinity")
        return Measurement(member_scores=[score], scope_distance=0.0)

    def invert(self, model: Model) -> Found:
        """Return all that the inversion found; raises ModelError where there is no gradient."""
        from litmus.inversion import prepared

        if self.clean is None:
            raise UsageError(f"{self.name} needs clean images", expected="with_images(split)")
        module = self.torch_module(model)
        self.check_shape(model)
        return self.search(prepared(module), self.clean)

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in full; raises UsageError for an unknown or impossible one."""
        return cls.resolved(cls.settings_type(), options)

    @classmethod
    @abstractmethod
    def settings_type(cls) -> type[Any]:
        """Return the dataclass of the inversion's settings."""

    @abstractmethod
    def search(self, module: nn.Module, clean: ClassImages) -> Found:
        """Invert triggers of a prepared network."""

    @abstractmethod
    def statistic(self, found: Found) -> float:
        """Return how suspicious that is; higher is more so."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return nothing: images stay where they are."""
        return {}

    def options(self) -> dict[str, Any]:
        """Return the settings and the offset."""
        return {"settings": dict(self.settings), "offset": self.offset}

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read what `to_bytes` wrote; raises DetectorError where it is malformed."""
        common = cls.common_fields(arrays, header)
        try:
            options = header["options"]
            settings, offset = cls.resolve(options["settings"]), float(options["offset"])
        except (KeyError, TypeError, ValueError, UsageError) as fault:
            raise DetectorError(f"malformed options: {fault}") from fault
        return cls(settings=settings, offset=offset, **common)


def _balanced(entries: Sequence[ZooEntry], models: int) -> list[ZooEntry]:
    """The first so many of each kind."""
    kinds = [[e for e in entries if e.backdoored is bad][:models] for bad in (False, True)]
    return [entry for kind in kinds for entry in kind]
