"""The paper's baseline (3.4.2): how well the best universal patch between two classes does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from litmus.detectors.inverting import InversionDetector, resolved
from litmus.models import Model

if TYPE_CHECKING:
    from torch import nn

    from litmus.inversion import ClassImages, PatchInversion

__all__ = ["AttackBasedDetector"]


@dataclass(frozen=True, kw_only=True)
class AttackBasedDetector(InversionDetector):
    """Score: minus the loss of the most successful pair of source and target class.

    Settings are those of `litmus.inversion.PatchSettings`; the patch's size is taken as known.
    """

    name: ClassVar[str] = "attack_based"

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in full."""
        from litmus.inversion import PatchSettings

        return resolved(PatchSettings, options)

    def invert(self, model: Model) -> PatchInversion:
        """Return the losses of all pairs, the most successful one and its patch."""
        return self._invert(*self._ready(model))

    def _statistic(self, module: nn.Module, clean: ClassImages) -> float:
        return -self._invert(module, clean).loss

    def _invert(self, module: nn.Module, clean: ClassImages) -> PatchInversion:
        from litmus.inversion import PatchSettings, invert_patches

        return invert_patches(module, clean, PatchSettings(**self.settings))
