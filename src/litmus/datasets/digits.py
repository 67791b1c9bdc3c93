"""Handwritten digits that come embedded in scikit-learn, 8x8 scaled to 28x28."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from litmus.datasets.images import ImageDataset, Split, cached
from litmus.errors import DataError

__all__ = ["load"]


def load(*, data: Path | None = None) -> ImageDataset:
    """Load the 1,797 digits (E. Alpaydin, C. Kaynak, UCI 1998) as 1x28x28.

    Every fourth image of each class is held out, so both splits have all writers' styles. Raises
    DataError where `data` names a folder: these come with scikit-learn.
    """
    if data is not None:
        raise DataError("digits come with scikit-learn", expected="no folder of images", got=data)
    return cached("digits", {"layout": 1}, _decode, "scikit-learn's load_digits")


def _decode() -> tuple[tuple[str, ...], Split, Split]:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Ink is 0..16; 24 of the 28 pixels are used, as MNIST leaves a margin.
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pictures = [Image.fromarray(s).resize((24, 24), Image.Resampling.BICUBIC) for s in small]
    images = np.pad(np.stack([np.asarray(p) for p in pictures]), ((0, 0), (2, 2), (2, 2)))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        held_out[torch.nonzero(labels == label).flatten()[3::4]] = True
    every = Split(images=torch.from_numpy(images[:, None]), labels=labels)
    return tuple(str(label) for label in range(10)), every[~held_out], every[held_out]
