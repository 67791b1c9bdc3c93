"""From images in [0, 1] to what an ONNX graph's input wants: sizes, layout, type, batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats.onnx_graph import GraphInput
from litmus.formats.preprocessing import Layout, Preprocessing
from litmus.models import Images, InputSpec

__all__ = ["ImageInput"]

_LAYOUTS: Final[tuple[Layout, ...]] = ("nchw", "nhwc")
_MAX_BATCH: Final = 4096
# Where any batch will do: small enough that a large network's activations fit in memory, and
# that fresh memory, each page of which a new process pays for, is used again.
_OPEN_BATCH: Final = 16

Sizes = tuple[int | None, int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """How one graph is fed: `image_shape` is (c, h, w) whatever the layout.

    `declared` are the same sizes as the graph states them, None where it leaves one open. `batch`
    is the graph's fixed batch size, None where any will do. `remarks` tells what was assumed
    beside the preprocessing.
    """

    name: str
    dtype: str
    batch: int | None
    layout: Layout
    image_shape: tuple[int, int, int]
    declared: Sizes
    preprocessing: Preprocessing
    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls, source: GraphInput, stated: Preprocessing, expected: InputSpec | None, where: object
    ) -> ImageInput:
        """Settle what the graph and the stated preprocessing leave open.

        `expected` fills in open sizes and picks the layout where both would do. Raises ModelError
        or UnsupportedModelError where that is impossible.
        """
        batch, *_ = source.sizes
        if batch is not None and batch > _MAX_BATCH:
            raise ModelError(
                "an impossible batch size", expected=f"at most {_MAX_BATCH}", got=batch, where=where
            )
        remarks = []
        layout = stated.layout
        if layout is None:
            layout = _infer_layout(source, expected)
            shape = ", ".join(str(size or "?") for size in source.sizes)
            remarks.append(f"layout {layout}, from the input's shape ({shape})")
        sizes = _in_order(source, layout)
        if None in sizes:
            if expected is None:
                raise UnsupportedModelError("the input's size is open", got=sizes, where=where)
            remarks.append("the graph leaves the input's size open: the detector's was taken")
        fallback = expected.image_shape if expected else (0, 0, 0)
        channels, height, width = (s or f for s, f in zip(sizes, fallback, strict=True))
        stated.check(channels, where)
        if source.dtype == "uint8" and "scale" not in stated.origin:
            stated = replace(stated, scale=255.0, origin={**stated.origin, "scale": "uint8 input"})
        return cls(
            name=source.name,
            dtype=source.dtype,
            batch=batch,
            layout=layout,
            image_shape=(channels, height, width),
            declared=sizes,
            preprocessing=stated,
            remarks=tuple(remarks),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was stated, and what was assumed."""
        return (*self.preprocessing.notes(self.image_shape[0]), *self.remarks)

    def may_be(self, shape: tuple[int, int, int]) -> bool:
        """Return whether the graph leaves open that images are (c, h, w) of this shape."""
        return None in self.declared and _fits(self.declared, shape)

    def batches(self, images: Images) -> Iterator[tuple[NDArray[Any], int]]:
        """Yield what the graph is fed, and how many of its rows are images.

        A fixed batch is filled up with the last image.
        """
        values = self._prepare(images)
        size = self.batch or _OPEN_BATCH
        for start in range(0, len(values), size):
            part = values[start : start + size]
            count = len(part)
            if self.batch and count < self.batch:
                padding = np.repeat(part[-1:], self.batch - count, axis=0)
                part = np.concatenate([part, padding])
            yield part, count

    def _prepare(self, images: Images) -> NDArray[Any]:
        values: NDArray[Any] = self.preprocessing.apply(images)
        if self.layout == "nhwc":
            values = values.transpose(0, 2, 3, 1)
        if self.dtype == "uint8":
            values = np.rint(values).clip(0, 255)
        return np.ascontiguousarray(values, dtype=self.dtype)


def _infer_layout(source: GraphInput, expected: InputSpec | None) -> Layout:
    fitting = [
        layout
        for layout in _LAYOUTS
        if expected and _fits(_in_order(source, layout), expected.image_shape)
    ]
    if len(fitting) == 1:
        return fitting[0]
    _, first, _, last = source.sizes
    return "nhwc" if last in (1, 3) and first not in (1, 3) else "nchw"


def _in_order(source: GraphInput, layout: Layout) -> Sizes:
    """Channels, height, width."""
    _, a, b, c = source.sizes
    return (a, b, c) if layout == "nchw" else (c, a, b)


def _fits(sizes: Sizes, shape: tuple[int, int, int]) -> bool:
    return all(size in (None, wanted) for size, wanted in zip(sizes, shape, strict=True))
