"""Labelled images, held as uint8 tensors.

A new data set is one file with a `load(*, data, ...)` and one line in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from litmus.datasets import cifar10, digits, folder, gtsrb, mnist
from litmus.datasets.images import ImageDataset, Split
from litmus.errors import DataError

__all__ = ["DATASETS", "ImageDataset", "Split", "load_images"]

DATASETS: Final[dict[str, Callable[..., ImageDataset]]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "gtsrb": gtsrb.load,
    "folder": folder.load,
}


def load_images(name: str, *, data: str | Path | None = None, **options: Any) -> ImageDataset:
    """Load a data set by name; `data` is a local folder in place of the hub.

    Raises DataError for an unknown name and for missing or malformed files.
    """
    if name not in DATASETS:
        raise DataError("unknown data set", expected=f"one of {', '.join(DATASETS)}", got=name)
    return DATASETS[name](data=None if data is None else Path(data), **options)
