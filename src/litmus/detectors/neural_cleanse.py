"""Neural Cleanse (Wang et al. 2019; the paper's [26]): a class that is too easily reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.inverting import InversionDetector
from litmus.models import Gradients

if TYPE_CHECKING:
    from litmus.inversion import ClassImages, MaskInversion, MaskSettings

__all__ = ["NeuralCleanseDetector", "norm_statistics"]

_LEAST: Final = 0.1
"""Of a pixel: a mask of less is of nothing."""


def norm_statistics(norms: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """Return the numbers of `NeuralCleanseDetector.statistic_names` for masks' norms (k,).

    They do not depend on the order of the classes.
    """
    ordered = np.sort(np.log(np.maximum(norms, _LEAST)))
    smallest, middle = ordered[0], np.median(ordered)
    room = np.log(pixels)
    return np.array([room - smallest, room - middle, middle - smallest, ordered[1] - smallest])


@dataclass(frozen=True, kw_only=True)
class NeuralCleanseDetector(InversionDetector["MaskInversion"]):
    """Classes that a small mask reaches, among all classes' reversed triggers.

    Settings are those of `litmus.inversion.MaskSettings`. The raw score is Wang et al.'s anomaly
    index of the smallest mask; they call a model backdoored where it is above 2. It counts in
    deviations of the other masks' norms, which differ between networks for reasons of their own
    and tell nothing of a backdoor to every class: a calibrated detector learns how much the
    smallest norm, the median and the ratios tell.
    """

    name: ClassVar[str] = "neural_cleanse"
    statistic_names: ClassVar[tuple[str, ...]] = (
        "log image / smallest",
        "log image / median",
        "log median / smallest",
        "log second / smallest",
    )

    @classmethod
    def settings_type(cls) -> type[MaskSettings]:
        """Return `MaskSettings`."""
        from litmus.inversion import MaskSettings

        return MaskSettings

    def search(self, model: Gradients, clean: ClassImages) -> MaskInversion:
        """Return what `litmus.inversion.invert_masks` finds."""
        from litmus.inversion import MaskSettings, invert_masks

        return invert_masks(model, clean, MaskSettings(**self._full_settings()))

    def read(self, found: MaskInversion) -> NDArray[np.float64]:
        """Return `norm_statistics` of the masks."""
        _, height, width = self.input_spec.image_shape
        return norm_statistics(found.norms, height * width)

    def raw_score(self, found: MaskInversion) -> float:
        """Return the anomaly index of the smallest mask."""
        return found.anomaly_index
