"""Trigger inversion: what would have to be stamped on images to reach another class.

The trigger search (`search`, `forms`) is NumPy on a model's gradients; what other authors' methods
optimise needs torch, which is imported where such a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litmus.formats.torch_gradients import prepared
    from litmus.inversion.margins import MarginSettings, maximum_margins
    from litmus.inversion.masks import (
        MaskInversion,
        MaskSettings,
        anomaly_indices,
        invert_masks,
        reverse_masks,
        with_masks,
    )
    from litmus.inversion.patches import (
        PatchInversion,
        PatchSettings,
        all_pairs,
        invert_patches,
        with_patch,
    )
    from litmus.inversion.subject import ClassImages, GradientModule

__all__ = [
    "ClassImages",
    "GradientModule",
    "MarginSettings",
    "MaskInversion",
    "MaskSettings",
    "PatchInversion",
    "PatchSettings",
    "all_pairs",
    "anomaly_indices",
    "invert_masks",
    "invert_patches",
    "maximum_margins",
    "prepared",
    "reverse_masks",
    "with_masks",
    "with_patch",
]

_HOMES = {
    "MarginSettings": "litmus.inversion.margins",
    "maximum_margins": "litmus.inversion.margins",
    "MaskInversion": "litmus.inversion.masks",
    "MaskSettings": "litmus.inversion.masks",
    "anomaly_indices": "litmus.inversion.masks",
    "invert_masks": "litmus.inversion.masks",
    "reverse_masks": "litmus.inversion.masks",
    "with_masks": "litmus.inversion.masks",
    "PatchInversion": "litmus.inversion.patches",
    "PatchSettings": "litmus.inversion.patches",
    "all_pairs": "litmus.inversion.patches",
    "invert_patches": "litmus.inversion.patches",
    "with_patch": "litmus.inversion.patches",
    "ClassImages": "litmus.inversion.subject",
    "GradientModule": "litmus.inversion.subject",
    "prepared": "litmus.formats.torch_gradients",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'litmus.inversion' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
