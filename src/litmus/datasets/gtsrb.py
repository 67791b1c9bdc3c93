"""German traffic signs in 43 classes, Stallkamp et al. 2012: 3x32x32."""

from __future__ import annotations

from pathlib import Path

from litmus.datasets.hub import load_hub_dataset
from litmus.datasets.images import ImageDataset

__all__ = ["load"]


def load(*, data: Path | None = None) -> ImageDataset:
    """Load GTSRB from `data`, `$LITMUS_DATA` or the hub; see `load_hub_dataset`."""
    return load_hub_dataset("gtsrb", hub_id="tanganke/gtsrb", image_size=32, channels=3, data=data)
