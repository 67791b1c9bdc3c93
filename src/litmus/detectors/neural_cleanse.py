"""Neural Cleanse (Wang et al. 2019; the paper's [26]): a class that is too easily reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from litmus.detectors.inverting import InversionDetector

if TYPE_CHECKING:
    from torch import nn

    from litmus.inversion import ClassImages, MaskInversion, MaskSettings

__all__ = ["NeuralCleanseDetector"]


@dataclass(frozen=True, kw_only=True)
class NeuralCleanseDetector(InversionDetector["MaskInversion"]):
    """Score: the anomaly index of the smallest mask among all classes' reversed triggers.

    Settings are those of `litmus.inversion.MaskSettings`. Wang et al. call a model backdoored
    where the index is above 2; `fit` finds a threshold of its own.
    """

    name: ClassVar[str] = "neural_cleanse"

    @classmethod
    def settings_type(cls) -> type[MaskSettings]:
        """Return `MaskSettings`."""
        from litmus.inversion import MaskSettings

        return MaskSettings

    def search(self, module: nn.Module, clean: ClassImages) -> MaskInversion:
        """Return what `litmus.inversion.invert_masks` finds."""
        from litmus.inversion import MaskSettings, invert_masks

        return invert_masks(module, clean, MaskSettings(**self.settings))

    def statistic(self, found: MaskInversion) -> float:
        """Return the score before any offset."""
        return found.anomaly_index
