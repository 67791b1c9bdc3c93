"""Trigger inversion: what would have to be stamped on clean images to reach another class.

It needs torch, clean images and gradients; no scan imports it.
"""

from __future__ import annotations

from litmus.inversion.masks import MaskInversion, MaskSettings, anomaly_indices, invert_masks
from litmus.inversion.patches import PatchInversion, PatchSettings, all_pairs, invert_patches
from litmus.inversion.subject import ClassImages, prepared

__all__ = [
    "ClassImages",
    "MaskInversion",
    "MaskSettings",
    "PatchInversion",
    "PatchSettings",
    "all_pairs",
    "anomaly_indices",
    "invert_masks",
    "invert_patches",
    "prepared",
]
