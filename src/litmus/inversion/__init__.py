"""Trigger inversion: what would have to be stamped on clean images to reach another class.

It needs torch, gradients and clean images, which maximum margins do without.
"""

from __future__ import annotations

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
from litmus.inversion.subject import ClassImages, prepared

__all__ = [
    "ClassImages",
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
