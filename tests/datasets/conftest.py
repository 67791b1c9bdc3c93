"""Tiny data sets on disk, in the hub's layout and as folders of pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import datasets

WriteHub = Callable[..., Path]
WriteFolder = Callable[..., Path]


def picture(label: int, number: int, *, side: int = 8, mode: str = "RGB") -> Image.Image:
    """A noisy picture whose mean grey level tells its class."""
    generator = np.random.default_rng([abs(label), number])
    shape = (side, side) if mode == "L" else (side, side, 3)
    pixels = 40 * (label % 6) + generator.integers(0, 40, shape)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image) -> dict[str, bytes]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue()}


@pytest.fixture
def write_hub(tmp_path: Path) -> WriteHub:
    """Write `FOLDER/data/SPLIT-00000-of-00001.parquet` as the hub does; return FOLDER.

    `labels` has the labels of each split; `images` may replace the pictures of all splits.
    """

    def write(
        folder: str | Path = "set",
        *,
        image: str = "image",
        label: str = "label",
        classes: int = 3,
        labels: dict[str, Sequence[int | None]] | None = None,
        images: list[Any] | None = None,
        side: int = 8,
        mode: str = "RGB",
        extra: dict[str, Any] | None = None,
    ) -> Path:
        turns = [n % classes for n in range(2 * classes)]
        for split, chosen in (labels or {"train": turns, "test": turns[:classes]}).items():
            pictures = images or [
                encoded(picture(y or 0, n, side=side, mode=mode)) for n, y in enumerate(chosen)
            ]
            features: dict[str, Any] = {
                image: datasets.Image(),
                label: datasets.ClassLabel(names=[f"class {i}" for i in range(classes)]),
            }
            columns: dict[str, Any] = {image: pictures, label: list(chosen)}
            for name, feature in (extra or {}).items():
                features[name] = feature
                columns[name] = list(chosen)
            path = tmp_path / folder / "data" / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
            table.to_parquet(path)
        return tmp_path / folder

    return write


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write `FOLDER/CLASS/N.png`, `counts` pictures of each class; return FOLDER."""

    def write(
        folder: str,
        counts: dict[str, int],
        *,
        side: int = 8,
        mode: str = "RGB",
        suffix: str = "png",
    ) -> Path:
        for label, (name, count) in enumerate(counts.items()):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = tmp_path / folder / name / f"{number:03}.{suffix}"
                picture(label, number, side=side, mode=mode).save(path)
        return tmp_path / folder

    return write
