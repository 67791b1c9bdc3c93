"""Neural Cleanse (Wang et al. 2019; the paper's [26]): a class that is too easily reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from litmus.detectors.inverting import InversionDetector, resolved
from litmus.models import Model

if TYPE_CHECKING:
    from torch import nn

    from litmus.inversion import ClassImages, MaskInversion

__all__ = ["NeuralCleanseDetector"]


@dataclass(frozen=True, kw_only=True)
class NeuralCleanseDetector(InversionDetector):
    """Score: the anomaly index of the smallest mask among all classes' reversed triggers.

    Settings are those of `litmus.inversion.MaskSettings`. Wang et al. call a model backdoored
    where the index is above 2; `fit` finds a threshold of its own.
    """

    name: ClassVar[str] = "neural_cleanse"

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in full."""
        from litmus.inversion import MaskSettings

        return resolved(MaskSettings, options)

    def invert(self, model: Model) -> MaskInversion:
        """Return every class's reversed trigger, the anomaly indices and the flagged class."""
        return self._invert(*self._ready(model))

    def _statistic(self, module: nn.Module, clean: ClassImages) -> float:
        return self._invert(module, clean).anomaly_index

    def _invert(self, module: nn.Module, clean: ClassImages) -> MaskInversion:
        from litmus.inversion import MaskSettings, invert_masks

        return invert_masks(module, clean, MaskSettings(**self.settings))
