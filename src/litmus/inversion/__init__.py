"""Trigger inversion: what would have to be stamped on images to reach another class.

All of it is NumPy on a model's gradients. `search` and `forms` are the trigger search; `margins`,
`masks` and `patches` are other authors' methods.
"""

from litmus.inversion.margins import MarginSettings, maximum_margins
from litmus.inversion.masks import MaskInversion, MaskSettings, anomaly_indices, invert_masks
from litmus.inversion.patches import PatchInversion, PatchSettings, all_pairs, invert_patches
from litmus.inversion.subject import ClassImages

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
]
