"""Labelled images in memory, and the cache of decoded ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from litmus.artifacts import (
    cache_folder,
    canonical_json,
    encode_tensors,
    parse_tensors,
    write_atomically,
)
from litmus.errors import DataError
from litmus.models import InputSpec

__all__ = ["ImageDataset", "Split", "cached"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images uint8 (n, c, h, w) and their labels int64 (n,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: torch.Tensor) -> Split:
        """Return the images that `index` (int64 or bool) picks, in its order."""
        return Split(images=self.images[index], labels=self.labels[index])

    def of_class(self, label: int) -> torch.Tensor:
        """Return the positions of one class, int64."""
        return torch.nonzero(self.labels == label).flatten()


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """A data set with a training split and a held-out one.

    `sha256` is the digest of all pixels and labels; it stands in each zoo model's header.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    sha256: str

    @property
    def input_spec(self) -> InputSpec:
        """Shape of a classifier for these images."""
        _, channels, height, width = self.train.images.shape
        return InputSpec(
            channels=channels, height=height, width=width, num_classes=len(self.class_names)
        )

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean of each channel over all pixels of the training images, in [0, 1] (c,)."""
        return self._moments[0]

    @property
    def std(self) -> NDArray[np.float32]:
        """The standard deviation of each channel over all pixels, in [0, 1] (c,)."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        levels = np.arange(256) / 255
        found = []
        for pixels in self.train.images.transpose(0, 1):
            share = torch.bincount(pixels.flatten(), minlength=256).double().numpy()
            share /= share.sum()
            mean = share @ levels
            found.append((mean, np.sqrt(share @ (levels - mean) ** 2)))
        mean, std = np.array(found, dtype=np.float32).T
        return mean, std

    @property
    def background(self) -> NDArray[np.float32]:
        """The median of the training images' outermost pixels in each channel, in [0, 1] (c,)."""
        images = self.train.images
        rows, columns = images[:, :, [0, -1], :], images[:, :, :, [0, -1]]
        border = torch.cat([rows.flatten(2), columns.flatten(2)], dim=2)
        level: NDArray[np.float32] = (
            border.transpose(0, 1).flatten(1).float().median(dim=1).values / 255
        ).numpy()
        return level


def cached(
    name: str,
    key: object,
    decode: Callable[[], tuple[tuple[str, ...], Split, Split]],
    where: object,
) -> ImageDataset:
    """Return the data set from the cache, decoding it on the first call.

    `key` is whatever the decoded pixels depend on (files with sizes and times, options). The
    cache is `$LITMUS_CACHE` or the user's cache folder; its files can be deleted at any time.
    """
    digest = hashlib.sha256(canonical_json([name, key]).encode()).hexdigest()[:24]
    path = cache_folder() / f"{name}-{digest}.safetensors"
    if path.exists():
        try:
            return _read(name, path)
        except DataError:
            path.unlink()  # damaged: decode again
    class_names, train, test = decode()
    _check(train, len(class_names), where)
    _check(test, len(class_names), where)
    arrays = {
        "train_images": train.images.numpy(),
        "train_labels": train.labels.numpy(),
        "test_images": test.images.numpy(),
        "test_labels": test.labels.numpy(),
    }
    write_atomically(path, encode_tensors(arrays, {"class_names": list(class_names)}))
    return _read(name, path)


def _read(name: str, path: Path) -> ImageDataset:
    arrays, header = parse_tensors(path.read_bytes(), path, DataError)
    splits = [
        Split(
            images=torch.from_numpy(arrays[f"{split}_images"]),
            labels=torch.from_numpy(arrays[f"{split}_labels"]),
        )
        for split in ("train", "test")
    ]
    return ImageDataset(
        name=name,
        class_names=tuple(header["class_names"]),
        train=splits[0],
        test=splits[1],
        sha256=header["tensors_sha256"],
    )


def _check(split: Split, num_classes: int, where: object) -> None:
    outside = split.labels[(split.labels < 0) | (split.labels >= num_classes)]
    if len(outside):
        raise DataError(
            "a label has no class",
            expected=f"0 to {num_classes - 1}",
            got=int(outside[0]),
            where=where,
        )
    counts = torch.bincount(split.labels, minlength=num_classes)
    if int(counts.min()) == 0:
        raise DataError(
            "a class has no images",
            expected=f"images of all {num_classes} classes in both splits",
            got=f"images per class {counts.tolist()}",
            where=where,
        )
