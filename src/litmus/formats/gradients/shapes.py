"""Gradients of what moves numbers about and leaves them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError

__all__ = [
    "cast",
    "concat",
    "cumulative_sum",
    "depth_to_space",
    "expand",
    "gather",
    "pad",
    "passed_on",
    "reshaped",
    "resize",
    "slices",
    "space_to_depth",
    "split",
    "tile",
    "transpose",
]


def _alone(node: Node, cotangent: str | None) -> Cotangents:
    """The first input's cotangent; the others are constants."""
    return [cotangent, *[None] * (len(node.inputs) - 1)]


def passed_on(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Identity and Dropout."""
    return _alone(node, cotangents[0])


def cast(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Cast: whole numbers have no gradient, but their sums in a quantised network do."""
    return _alone(node, cotangents[0])


def reshaped(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    return _alone(node, b.reshaped(str(cotangents[0]), node.inputs[0]))


def transpose(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Transpose."""
    rank = len(b.shape(node.inputs[0]))
    order = list(node.get("perm", range(rank)[::-1]))
    back = [int(i) for i in np.argsort(order)]
    return [b.op("Transpose", str(cotangents[0]), perm=back)]


def expand(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Expand."""
    return _alone(node, b.fit(str(cotangents[0]), node.inputs[0], node))


def concat(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Concat."""
    axis = node.get("axis")
    sizes = [b.size(name, axis) for name in node.inputs]
    if len(sizes) == 1:
        return [cotangents[0]]
    parts = b.ops("Split", [str(cotangents[0]), b.ints(*sizes)], len(sizes), axis=axis)
    return [part if b.needs(n) else None for part, n in zip(parts, node.inputs, strict=True)]


def split(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Split."""
    parts = [
        given if given is not None else b.zeros(name)
        for given, name in zip(cotangents, node.outputs, strict=True)
    ]
    return _alone(node, b.op("Concat", *parts, axis=node.get("axis", 0)))


def _selected(b: Builder, dy: str, like: str, axis: int, taken: NDArray[Any]) -> str:
    """Bring numbers that were taken from places `taken` of an axis back to these."""
    size, rank = b.size(like, axis), len(b.shape(like))
    axis %= rank
    taken = np.where(taken < 0, taken + size, taken).reshape(-1)
    steps = np.diff(taken)
    if len(taken) and (steps == 1).all():
        if len(taken) == size:
            return dy
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = int(taken[0]), size - 1 - int(taken[-1])
        return b.op("Pad", dy, b.ints(*pads))
    if len(np.unique(taken)) < len(taken):
        matrix = np.zeros((len(taken), size), np.float32)
        matrix[np.arange(len(taken)), taken] = 1
        return b.along(dy, rank, axis, matrix)
    # Each place is taken once or not at all: those come from a zero behind the others.
    places = np.full(size, len(taken))
    places[taken] = np.arange(len(taken))
    pads = [0] * (2 * rank)
    pads[rank + axis] = 1
    return b.op("Gather", b.op("Pad", dy, b.ints(*pads)), b.ints(*map(int, places)), axis=axis)


def slices(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Slice."""
    dy, x = str(cotangents[0]), node.inputs[0]
    rank = len(b.shape(x))
    starts = b.known(node.inputs[1], "start")
    ends = b.known(node.inputs[2], "end")
    axes = b.optional(node, 3, "axis")
    steps = b.optional(node, 4, "step")
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = int(axis) % rank
        if b.shape(x)[place] is None:
            if (int(start), int(step)) == (0, 1) and b.shape(node.outputs[0])[place] is None:
                continue
            raise NoGradientError("it works along the axis of the images")
        size = b.size(x, place)
        taken = np.arange(size)[_bounds(int(start), int(end), int(step), size)]
        dy = _selected(b, dy, x, place, taken)
    return _alone(node, dy)


def _bounds(start: int, end: int, step: int, size: int) -> slice:
    # An end far below 0 with a negative step means: to the first one.
    return slice(start, None if step < 0 and end < -size else end, step)


def gather(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Gather with constant indices."""
    dy, x = str(cotangents[0]), node.inputs[0]
    rank = len(b.shape(x))
    axis = node.get("axis", 0) % rank
    indices = b.known(node.inputs[1], "index")
    if indices.ndim != 1:
        shape = [*b.shape(x)]
        shape[axis] = indices.size
        if sum(size is None for size in shape) > 1:
            raise NoGradientError("a shape is unknown")
        dy = b.op("Reshape", dy, b.ints(*(-1 if s is None else s for s in shape)))
    return [_selected(b, dy, x, axis, indices), None]


def pad(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Pad: with constants it is undone, otherwise a matrix along each axis."""
    dy, x = str(cotangents[0]), node.inputs[0]
    rank, mode = len(b.shape(x)), node.get("mode", "constant")
    given = b.known(node.inputs[1], "pads").reshape(2, -1)
    axes = b.optional(node, 3, "axis")
    pads = np.zeros((2, rank), np.int64)
    pads[:, list(range(rank)) if axes is None else axes] = given
    if mode == "constant":
        return _alone(node, b.op("Pad", dy, b.ints(*map(int, -pads.reshape(-1)))))
    for axis in range(rank):
        if pads[:, axis].any():
            ends = np.array([0, 0, pads[0, axis], 0, 0, pads[1, axis]])
            matrix = b.matrix("Pad", b.size(x, axis), ends, mode=mode)
            dy = b.along(dy, rank, axis, matrix.T)
    return _alone(node, dy)


def tile(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Tile."""
    dy, x = str(cotangents[0]), node.inputs[0]
    for axis, count in enumerate(b.known(node.inputs[1], "count")):
        if count != 1:
            size = b.size(x, axis)
            dy = _selected(b, dy, x, axis, np.tile(np.arange(size), int(count)))
    return _alone(node, dy)


def resize(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Resize: what it makes of unit vectors along each axis is its matrix."""
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise NoGradientError("it crops")
    names = ("mode", "nearest_mode", "cubic_coeff_a", "antialias", "exclude_outside")
    attributes = {name: v for name in names if (v := node.get(name)) is not None}
    attributes["coordinate_transformation_mode"] = mode
    return _resized(node, b, str(cotangents[0]), b.optional(node, 2, "scale"), attributes)


def _resized(
    node: Node, b: Builder, dy: str, scales: NDArray[Any] | None, attributes: dict[str, Any]
) -> Cotangents:
    x, y = node.inputs[0], node.outputs[0]
    rank = len(b.shape(x))
    axes = node.get("axes") or list(range(rank))
    for axis in range(rank):
        if b.shape(x)[axis] == b.shape(y)[axis]:
            continue
        size, wanted = b.size(x, axis), b.size(y, axis)
        if scales is not None and scales.size:
            scale = float(scales[axes.index(axis)])
            rest = [None, np.array([1, 1, scale, 1], np.float32)]
        else:
            rest = [None, None, np.array([1, size, wanted, 1])]
        matrix = b.matrix("Resize", size, *rest, shape=(1, size, size, 1), **attributes)
        if matrix.shape[1] != wanted:
            raise NoGradientError("its sizes are odd")
        dy = b.along(dy, rank, axis, matrix.T)
    return _alone(node, dy)


def depth_to_space(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """DepthToSpace."""
    dy, x, side = str(cotangents[0]), node.inputs[0], node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        return [b.op("SpaceToDepth", dy, blocksize=side)]
    channels, height, width = (b.size(x, axis) for axis in (1, 2, 3))
    split_up = b.ints(-1, channels // side**2, height, side, width, side)
    moved = b.op("Transpose", b.op("Reshape", dy, split_up), perm=[0, 1, 3, 5, 2, 4])
    return [b.reshaped(moved, x)]


def space_to_depth(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """SpaceToDepth."""
    return [b.op("DepthToSpace", str(cotangents[0]), blocksize=node.get("blocksize"))]


def cumulative_sum(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """CumSum."""
    back = b.op(
        "CumSum",
        str(cotangents[0]),
        node.inputs[1],
        exclusive=node.get("exclusive", 0),
        reverse=1 - node.get("reverse", 0),
    )
    return [back, None]
