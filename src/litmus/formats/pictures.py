"""Any pictures of a model's domain, without labels and without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from litmus.errors import DataError, MissingExtraError
from litmus.models import Images, InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load_pictures"]

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_MOST_PIXELS: Final = 50_000_000
"""Of a picture; a small file may unpack to any size."""
_MODES: Final = {1: "L", 3: "RGB"}


def load_pictures(folder: str | Path, input_spec: InputSpec, *, most: int = 1000) -> Images:
    """Return the pictures below a folder, (n, c, h, w) in [0, 1], in the order of their paths.

    They are resampled to the size of `input_spec`. Of more than `most` so many are taken, evenly
    over the list. Damaged files are passed over. Raises DataError where the
    folder holds none that can be read, MissingExtraError without Pillow.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as fault:
        raise MissingExtraError("pictures need Pillow", expected="pip install pillow") from fault
    if input_spec.channels not in _MODES:
        raise DataError("pictures have 1 or 3 channels", got=str(input_spec))
    files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in _SUFFIXES)
    if len(files) > most:
        files = [files[i * len(files) // most] for i in range(most)]
    found = []
    for file in files:
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height <= _MOST_PIXELS:
                    found.append(_pixels(picture, input_spec))
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
            continue
    if not found:
        raise DataError(
            "no pictures that can be read",
            expected=f"files {', '.join(sorted(_SUFFIXES))} below it",
            got=f"{len(files)} of these names",
            where=folder,
        )
    return np.stack(found)


def _pixels(picture: Image, spec: InputSpec) -> Images:
    from PIL import Image

    size = (spec.width, spec.height)
    whole = picture.convert(_MODES[spec.channels]).resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(whole, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(values.reshape(spec.height, spec.width, -1).transpose(2, 0, 1))
