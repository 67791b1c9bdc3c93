"""Data sets in the Hugging Face layout: from the hub, or from a local folder of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litmus.datasets.images import ImageDataset, Split, cached
from litmus.errors import DataError

__all__ = ["has_parquet_files", "load_hub_dataset", "local_folder"]


def load_hub_dataset(
    name: str, *, hub_id: str, image_size: int, channels: int, data: Path | None
) -> ImageDataset:
    """Load `name` from a local folder if there is one, otherwise from the hub.

    `data` (or `$LITMUS_DATA`) is the data set's own folder or one that has it as `NAME/`; Parquet
    files `data/SPLIT-*.parquet` are expected in it. The one Image and the one ClassLabel column
    are used whatever they are called; other image sizes are resampled. Raises DataError.
    """
    folder = local_folder(name, data)
    source = str(folder) if folder else hub_id
    key = {
        "source": hub_id if folder is None else [_stamp(p) for p in _parquet_files(folder)],
        "image_size": image_size,
        "channels": channels,
    }
    return cached(name, key, lambda: _decode(source, image_size, channels), source)


def local_folder(name: str, data: Path | None) -> Path | None:
    """Return the folder with the Parquet files of `name`, or None where the hub is meant.

    Raises DataError when a folder was named, by `data` or `$LITMUS_DATA`, and has no such files.
    """
    if data is None and not (named := os.environ.get("LITMUS_DATA")):
        return None
    root = Path(data if data is not None else str(named))
    candidates = [root / name, root]
    for folder in candidates:
        if _parquet_files(folder):
            return folder
    looked_for = " or ".join(str(folder / "data" / "train-*.parquet") for folder in candidates)
    raise DataError(f"data set {name!r} not found", expected=looked_for, where=root)


def has_parquet_files(folder: Path) -> bool:
    """Return whether `load_hub_dataset` can read a folder."""
    return bool(_parquet_files(folder))


def _parquet_files(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("t*-*.parquet"))


def _stamp(path: Path) -> list[object]:
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _decode(source: str, image_size: int, channels: int) -> tuple[tuple[str, ...], Split, Split]:
    import datasets

    try:
        splits: Mapping[str, Any] = datasets.load_dataset(source, streaming=True)
    except Exception as fault:  # the library raises a dozen unrelated types
        raise DataError(
            f"the data set can't be loaded: {fault}",
            expected="a hub id that can be reached, or --data DIR with data/SPLIT-*.parquet",
            where=source,
        ) from fault
    missing = {"train", "test"} - set(splits)
    if missing:
        raise DataError(
            "a split is missing", expected="train and test", got=sorted(splits), where=source
        )
    image, label = _columns(splits["train"].features, source)
    names = tuple(splits["train"].features[label].names)
    decoded = [
        _decode_split(splits[split], image, label, image_size, channels, f"{source} ({split})")
        for split in ("train", "test")
    ]
    return names, decoded[0], decoded[1]


def _columns(features: Mapping[str, Any], source: str) -> tuple[str, str]:
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            "unexpected columns",
            expected="one Image and one ClassLabel column",
            got={name: str(kind) for name, kind in features.items()},
            where=source,
        )
    return images[0], labels[0]


def _decode_split(
    rows: Any, image: str, label: str, image_size: int, channels: int, where: str
) -> Split:
    from PIL import Image

    pixels, labels = [], []
    try:
        for row in rows:
            picture = row[image].convert("L" if channels == 1 else "RGB")
            if picture.size != (image_size, image_size):
                picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
            pixels.append(np.asarray(picture))
            labels.append(int(row[label]))
    except Exception as fault:  # Pillow and pyarrow raise a dozen unrelated types
        raise DataError(f"image {len(pixels)} can't be decoded: {fault}", where=where) from fault
    if not pixels:
        raise DataError("the split has no images", where=where)
    stacked = np.stack(pixels).reshape(len(pixels), image_size, image_size, channels)
    return Split(
        images=torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
