"""Handwritten digits, LeCun, Cortes and Burges 1998: 60,000 + 10,000 of 1x28x28."""

from __future__ import annotations

from pathlib import Path

from litmus.datasets.hub import load_hub_dataset
from litmus.datasets.images import ImageDataset

__all__ = ["load"]


def load(*, data: Path | None = None) -> ImageDataset:
    """Load MNIST from `data`, `$LITMUS_DATA` or the hub; see `load_hub_dataset`."""
    return load_hub_dataset("mnist", hub_id="ylecun/mnist", image_size=28, channels=1, data=data)
