"""The user's own images: one folder a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litmus.datasets.images import ImageDataset, Split, cached
from litmus.errors import DataError

__all__ = ["load", "load_some"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tiff"})
_HELD_OUT = 5
"""Without a `test` folder every fifth image of a class is held out."""


def load(*, data: Path | None = None, image_size: int = 32, channels: int = 3) -> ImageDataset:
    """Load `DIR/CLASS/*.png`, or `DIR/train/CLASS/*` with `DIR/test/CLASS/*`.

    Classes are the folders' names in sorted order; images are resampled to a square of
    `image_size` pixels (bicubic). `data` or `$LITMUS_DATA` names DIR. Raises DataError.
    """
    named = data if data is not None else os.environ.get("LITMUS_DATA")
    if not named:
        raise DataError(
            "where are the images?", expected="--data DIR or LITMUS_DATA, one folder a class"
        )
    root = Path(named)
    files = {split: _files(folder) for split, folder in _split_folders(root).items()}
    names = _class_names(files, root)
    if "test" not in files:
        files = _hold_out(files["train"], root)
    stamps = [
        [split, str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns]
        for split, classes in files.items()
        for paths in classes.values()
        for path in paths
    ]

    def decode() -> tuple[tuple[str, ...], Split, Split]:
        train, test = (_decode(files[s], names, image_size, channels) for s in ("train", "test"))
        return names, train, test

    key = {"files": stamps, "image_size": image_size, "channels": channels}
    return cached("folder", key, decode, root)


def load_some(
    root: Path, *, image_size: int, channels: int, per_class: int
) -> tuple[tuple[str, ...], Split]:
    """Load classes and up to `per_class` images of each, evenly from each folder's sorted files.

    They are those of `root/test/CLASS` where there is such a folder, else those of `root/CLASS`;
    the rest is as for `load`. Raises DataError.
    """
    split = _split_folders(root)
    folder = split.get("test", split["train"])
    files = _files(folder)
    names = _class_names({"all": files}, folder)
    few = {name: paths[:: -(-len(paths) // per_class)] for name, paths in files.items()}
    return names, _decode(few, names, image_size, channels)


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError("no such folder", expected="a folder with one folder a class", where=root)
    if (root / "train").is_dir() and (root / "test").is_dir():
        return {"train": root / "train", "test": root / "test"}
    return {"train": root}


def _files(folder: Path) -> dict[str, list[Path]]:
    classes = {
        child.name: sorted(p for p in child.rglob("*") if p.suffix.lower() in _SUFFIXES)
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }
    return {name: paths for name, paths in classes.items() if paths}


def _class_names(files: dict[str, dict[str, list[Path]]], root: Path) -> tuple[str, ...]:
    names = [tuple(classes) for classes in files.values()]
    if len(names[0]) < 2:
        raise DataError(
            "too few classes",
            expected="at least two folders with images in them",
            got=list(names[0]),
            where=root,
        )
    if len(set(names)) > 1:
        raise DataError(
            "train and test have different classes",
            expected=list(names[0]),
            got=list(names[1]),
            where=root,
        )
    return names[0]


def _hold_out(classes: dict[str, list[Path]], root: Path) -> dict[str, dict[str, list[Path]]]:
    small = {name: len(paths) for name, paths in classes.items() if len(paths) < _HELD_OUT}
    if small:
        raise DataError(
            "too few images to hold some out",
            expected=f"at least {_HELD_OUT} images a class",
            got=small,
            where=root,
        )
    last = _HELD_OUT - 1
    test = {name: paths[last::_HELD_OUT] for name, paths in classes.items()}
    train = {
        name: [p for i, p in enumerate(paths) if i % _HELD_OUT != last]
        for name, paths in classes.items()
    }
    return {"train": train, "test": test}


def _decode(
    classes: dict[str, list[Path]], names: tuple[str, ...], image_size: int, channels: int
) -> Split:
    pixels = [_pixels(p, image_size, channels) for name in names for p in classes[name]]
    labels = [label for label, name in enumerate(names) for _ in classes[name]]
    return Split(
        images=torch.from_numpy(np.stack(pixels)), labels=torch.tensor(labels, dtype=torch.int64)
    )


def _pixels(path: Path, image_size: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            converted = picture.convert("L" if channels == 1 else "RGB")
    except Exception as fault:  # Pillow raises a dozen unrelated types on damaged files
        raise DataError(f"not a readable image: {fault}", where=path) from fault
    resized = converted.resize((image_size, image_size), Image.Resampling.BICUBIC)
    array = np.asarray(resized).reshape(image_size, image_size, channels)
    return np.ascontiguousarray(array.transpose(2, 0, 1))
