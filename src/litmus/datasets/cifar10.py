"""Natural images in ten classes, Krizhevsky 2009: 50,000 + 10,000 of 3x32x32."""

from __future__ import annotations

from pathlib import Path

from litmus.datasets.hub import load_hub_dataset
from litmus.datasets.images import ImageDataset

__all__ = ["load"]


def load(*, data: Path | None = None) -> ImageDataset:
    """Load CIFAR10 from `data`, `$LITMUS_DATA` or the hub; see `load_hub_dataset`."""
    return load_hub_dataset(
        "cifar10", hub_id="uoft-cs/cifar10", image_size=32, channels=3, data=data
    )
