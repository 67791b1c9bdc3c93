"""Gradients of GridSample, to its images and to its grid."""

from __future__ import annotations

from dataclasses import dataclass

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError

__all__ = ["grid_sample"]


@dataclass(frozen=True)
class _Axis:
    """Where each sample lies along one axis, all (n, places).

    `low` is the pixel before it, `share` how far it is on the way to the next, `steep` what the
    position changes with the grid's value, `size` the number of pixels.
    """

    low: str
    share: str
    steep: str
    size: int


def grid_sample(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """GridSample, bilinear, outside of the image zeros or the border."""
    x, grid = node.inputs
    edge = node.get("padding_mode", "zeros")
    linear = node.get("mode", "linear") in ("linear", "bilinear")
    if not linear or edge not in ("zeros", "border") or len(b.shape(x)) != 4:
        raise NoGradientError("its mode")
    channels, height, width = (b.size(x, axis) for axis in (1, 2, 3))
    count = b.size(grid, 1) * b.size(grid, 2)
    dy = b.op("Reshape", str(cotangents[0]), b.ints(-1, channels, count))
    places = b.op("Reshape", grid, b.ints(-1, count, 2))
    aligned = bool(node.get("align_corners", 0))
    columns = _axis(b, places, 0, width, aligned, edge)
    rows = _axis(b, places, 1, height, aligned, edge)
    corners = [_Corner.of(b, rows, columns, down, right) for down in (0, 1) for right in (0, 1)]
    found: list[str | None] = [None, None]
    if b.needs(x):
        found[0] = _to_image(b, x, dy, corners, (channels, height * width, count))
    if b.needs(grid):
        flat = b.op("Reshape", x, b.ints(-1, channels, height * width))
        found[1] = b.reshaped(_to_grid(b, flat, dy, corners, (rows, columns), channels), grid)
    return found


def _axis(b: Builder, places: str, which: int, size: int, aligned: bool, edge: str) -> _Axis:
    value = b.op("Gather", places, b.const(which, "int64"), axis=2)
    steep = (size - 1) / 2 if aligned else size / 2
    middle = (size - 1) / 2
    position = b.op("Add", b.op("Mul", value, b.const(steep)), b.const(middle))
    slope = b.const(steep)
    if edge == "border":
        low, high = b.const(0.0), b.const(size - 1.0)
        inside = b.op("Mul", b.mask("Greater", position, low), b.mask("Less", position, high))
        slope = b.op("Mul", inside, slope)
        position = b.op("Clip", position, low, high)
    else:
        # Far outside all is zero; and a far place still has to be a whole number.
        position = b.op("Clip", position, b.const(-2.0), b.const(size + 1.0))
    low_pixel = b.op("Floor", position)
    return _Axis(low_pixel, b.op("Sub", position, low_pixel), slope, size)


@dataclass(frozen=True)
class _Corner:
    """One of the four pixels around each sample, all (n, places).

    `index` counts along rows; `inside` is 0 where it lies outside; `row` and `column` are its
    weights, `down` and `right` the sides.
    """

    index: str
    inside: str
    row: str
    column: str
    down: int
    right: int

    @classmethod
    def of(cls, b: Builder, rows: _Axis, columns: _Axis, down: int, right: int) -> _Corner:
        ends, masks, weights = [], [], []
        for axis, side in ((rows, down), (columns, right)):
            pixel = b.op("Add", axis.low, b.const(float(side)))
            last = b.const(axis.size - 1.0)
            kept = b.op("Clip", pixel, b.const(0.0), last)
            ends.append(kept)
            masks.append(b.mask("Equal", pixel, kept))
            weights.append(axis.share if side else b.op("Sub", b.const(1.0), axis.share))
        flat = b.op("Add", b.op("Mul", ends[0], b.const(float(columns.size))), ends[1])
        index = b.op("Cast", flat, to=7)
        return cls(index, b.op("Mul", *masks), weights[0], weights[1], down, right)


def _for_channels(b: Builder, value: str) -> str:
    """(n, places) as (n, 1, places)."""
    return b.op("Unsqueeze", value, b.ints(1))


def _over(b: Builder, corner: _Corner, channels: int) -> str:
    """The index of a corner for each channel, (n, c, places)."""
    return b.op("Tile", _for_channels(b, corner.index), b.ints(1, channels, 1))


def _to_image(
    b: Builder, x: str, dy: str, corners: list[_Corner], sizes: tuple[int, int, int]
) -> str:
    """Add each sample's cotangent to the four pixels that it was made of."""
    channels, pixels, _ = sizes
    parts, indices = [], []
    for corner in corners:
        weight = b.op("Mul", b.op("Mul", corner.row, corner.column), corner.inside)
        parts.append(b.op("Mul", dy, _for_channels(b, weight)))
        indices.append(_over(b, corner, channels))
    empty = b.op("Reshape", b.zeros(x), b.ints(-1, channels, pixels))
    whole = (b.op("Concat", *names, axis=2) for names in (indices, parts))
    total = b.op("ScatterElements", empty, *whole, axis=2, reduction="add")
    return b.reshaped(total, x)


def _to_grid(
    b: Builder, flat: str, dy: str, corners: list[_Corner], axes: tuple[_Axis, _Axis], channels: int
) -> str:
    """How much the samples change as their places move, (n, places, 2)."""
    sums: dict[str, list[str]] = {"row": [], "column": []}
    for corner in corners:
        pixels = b.op("GatherElements", flat, _over(b, corner, channels), axis=2)
        product = b.op("ReduceSum", b.op("Mul", pixels, dy), b.ints(1), keepdims=0)
        product = b.op("Mul", product, corner.inside)
        for name, weight, side in (
            ("row", corner.column, corner.down),
            ("column", corner.row, corner.right),
        ):
            sums[name].append(b.op("Mul", b.op("Mul", product, weight), b.const(2.0 * side - 1)))
    rows, columns = axes
    found = [
        b.op("Unsqueeze", b.op("Mul", b.op("Sum", *sums[name]), axis.steep), b.ints(2))
        for name, axis in (("column", columns), ("row", rows))
    ]
    return b.op("Concat", *found, axis=2)
