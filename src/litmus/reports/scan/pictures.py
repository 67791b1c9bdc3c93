"""Small pictures without a drawing library: images as PNG, and colours for a heat map."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PALETTE", "png_uri", "shades"]

_LARGEST: Final = 64  # pixels along a picture's longer side
_STOPS: Final = (
    "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b",
    "fde725",
)  # fmt: skip
"""Viridis (Smith and van der Walt, CC0), dark for low values."""


def _palette(steps: int) -> tuple[str, ...]:
    stops = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in _STOPS])
    at = np.linspace(0, len(stops) - 1, steps)
    mixed = [np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)]
    colours = np.rint(np.stack(mixed, axis=1)).astype(np.uint8)
    return tuple(f"#{colour.tobytes().hex()}" for colour in colours)


PALETTE: Final = _palette(32)
"""Colours from the lowest value to the highest, one a shade."""


def shades(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    """Return the index in `PALETTE` of each value between `low` and `high`."""
    share = (values - low) / max(high - low, 1e-12)
    found: NDArray[np.int64] = np.clip((share * len(PALETTE)).astype(np.int64), 0, len(PALETTE) - 1)
    return found


def png_uri(image: NDArray[Any]) -> str:
    """Return an image (c, h, w) of floats in [0, 1] as a `data:` URI.

    Three channels are red, green and blue; of any other number the mean is drawn in grey. Large
    images are made smaller by a whole factor.
    """
    channels = image if len(image) == 3 else image.mean(axis=0, keepdims=True)
    factor = max(1, -(-max(channels.shape[1:]) // _LARGEST))
    small = channels[:, ::factor, ::factor]
    pixels = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels (h, w, 1 or 3) (ISO 15948)."""
    height, width, channels = pixels.shape
    header = struct.pack(">2I5B", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    # Each row begins with its filter: none.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
