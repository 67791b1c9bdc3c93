"""The paper's baseline (3.4.2): how well the best universal patch between two classes does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from litmus.detectors.inverting import InversionDetector

if TYPE_CHECKING:
    from torch import nn

    from litmus.inversion import ClassImages, PatchInversion, PatchSettings

__all__ = ["AttackBasedDetector"]


@dataclass(frozen=True, kw_only=True)
class AttackBasedDetector(InversionDetector["PatchInversion"]):
    """Score: minus the loss of the most successful pair of source and target class.

    Settings are those of `litmus.inversion.PatchSettings`; the patch's size is taken as known.
    """

    name: ClassVar[str] = "attack_based"

    @classmethod
    def settings_type(cls) -> type[PatchSettings]:
        """Return `PatchSettings`."""
        from litmus.inversion import PatchSettings

        return PatchSettings

    def search(self, module: nn.Module, clean: ClassImages) -> PatchInversion:
        """Return what `litmus.inversion.invert_patches` finds."""
        from litmus.inversion import PatchSettings, invert_patches

        return invert_patches(module, clean, PatchSettings(**self.settings))

    def statistic(self, found: PatchInversion) -> float:
        """Return the score before any offset."""
        return -found.loss
