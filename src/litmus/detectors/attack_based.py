"""The paper's baseline (3.4.2): how well the best universal patch between two classes does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.inverting import InversionDetector
from litmus.models import Gradients

if TYPE_CHECKING:
    from litmus.inversion import ClassImages, PatchInversion, PatchSettings

__all__ = ["AttackBasedDetector"]

_LEAST: Final = 1e-6
"""Of a cross-entropy: all images are turned."""


@dataclass(frozen=True, kw_only=True)
class AttackBasedDetector(InversionDetector["PatchInversion"]):
    """The loss of the most successful pair of source and target class; the less, the worse.

    Settings are those of `litmus.inversion.PatchSettings`; the patch's size is taken as known.
    The raw score is minus the loss.
    """

    name: ClassVar[str] = "attack_based"
    statistic_names: ClassVar[tuple[str, ...]] = ("minus log loss",)

    @classmethod
    def settings_type(cls) -> type[PatchSettings]:
        """Return `PatchSettings`."""
        from litmus.inversion import PatchSettings

        return PatchSettings

    def search(self, model: Gradients, clean: ClassImages) -> PatchInversion:
        """Return what `litmus.inversion.invert_patches` finds."""
        from litmus.inversion import PatchSettings, invert_patches

        return invert_patches(model, clean, PatchSettings(**self._full_settings()))

    def read(self, found: PatchInversion) -> NDArray[np.float64]:
        """Return minus the logarithm of the loss."""
        return -np.log(np.maximum([found.loss], _LEAST))

    def raw_score(self, found: PatchInversion) -> float:
        """Return minus the loss."""
        return -found.loss
