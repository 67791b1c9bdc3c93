"""The gradient of sampling an image at the points of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from litmus.errors import UnsupportedModelError
from litmus.formats.gradients.builder import Builder, Rule, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["SAMPLING"]

Cotangents = Sequence[str | None]


def _grid_sample(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Bilinear, with zeros around the image: to the four pixels around each point, and to it."""
    assert given[0] is not None
    a, (x, grid) = attributes(node), node.input
    modes = a.get("mode", "linear"), a.get("padding_mode", "zeros")
    if modes[0] not in ("linear", "bilinear") or modes[1] != "zeros" or len(b.shapes[x]) != 4:
        raise UnsupportedModelError("its GridSample has no gradient", got=", ".join(modes))
    _, channels, height, width = b.shapes[x]
    points = b.shapes[node.output[0]][2] * b.shapes[node.output[0]][3]
    flat = b.add("Reshape", grid, b.ints([-1, 1, points, 2]))
    dy = b.add("Reshape", given[0], b.ints([-1, channels, points]))
    corners = [_axis(b, flat, i, size, a) for i, size in enumerate((width, height))]
    pixels = b.add("Reshape", x, b.ints([-1, channels, height * width]))
    to_x = b.add("Mul", pixels, b.const(0))
    slopes: list[str] = []
    for (column, of_x, in_x, turn_x), (row, of_y, in_y, turn_y) in (
        (p, q) for p in corners[0][1] for q in corners[1][1]
    ):
        inside = b.add("Cast", b.add("And", in_x, in_y), to=1)
        place = b.add("Add", b.add("Mul", row, b.ints([width])), column)
        everywhere = b.add("Expand", place, b.shape_of(dy))
        weight = b.add("Mul", b.add("Mul", of_x, of_y), inside)
        spread = b.add("Mul", dy, weight)
        to_x = b.add("ScatterElements", to_x, everywhere, spread, axis=2, reduction="add")
        value = b.add("GatherElements", pixels, everywhere, axis=2)
        heard = b.add("Mul", b.summed(b.add("Mul", dy, value), [1]), inside)
        slopes.append(
            b.add(
                "Concat",
                b.add("Mul", b.add("Mul", heard, of_y), b.const(turn_x * corners[0][0])),
                b.add("Mul", b.add("Mul", heard, of_x), b.const(turn_y * corners[1][0])),
                axis=1,
            )
        )
    to_grid = b.add("Transpose", b.add("Sum", *slopes), perm=[0, 2, 1])
    found = [b.reshaped_as(to_x, x), b.reshaped_as(to_grid, grid)]
    return [
        value if name in b.active else None for value, name in zip(found, node.input, strict=True)
    ]


def _axis(
    b: Builder, grid: str, index: int, size: int, a: dict[str, Any]
) -> tuple[float, list[tuple[str, str, str, int]]]:
    """Return pixels a unit of the grid, and for the pixels on both sides of each point

    their index, weight, whether they are in the image, and how the weight changes. (n, 1, points)
    """
    unit = b.add("Gather", grid, b.const(index, "int64"), axis=3)
    aligned = a.get("align_corners", 0)
    scale = (size - 1) / 2 if aligned else size / 2
    shift = (size - 1) / 2
    place = b.add("Add", b.add("Mul", unit, b.const(scale)), b.const(shift))
    low = b.add("Floor", place)
    over = b.add("Sub", place, low)
    sides = []
    for step, weight, turn in ((0, b.add("Sub", b.const(1), over), -1), (1, over, 1)):
        pixel = b.add("Add", low, b.const(step))
        inside = b.add(
            "And",
            b.add("Greater", pixel, b.const(-0.5)),
            b.add("Less", pixel, b.const(size - 0.5)),
        )
        kept = b.add("Clip", pixel, b.const(0), b.const(size - 1))
        sides.append((b.add("Cast", kept, to=7), weight, inside, turn))
    return scale, sides


SAMPLING: Final[dict[str, Rule]] = {"GridSample": _grid_sample}
