"""Gradients of poolings, reductions, softmax and the normalisations that look at the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from litmus.errors import UnsupportedModelError
from litmus.formats.gradients.builder import Builder, Rule, attributes
from litmus.formats.gradients.linear import pads_of

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["REDUCING"]

Cotangents = Sequence[str | None]


def _max_pool(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """To the largest of each window, whose place onnxruntime tells."""
    assert given[0] is not None
    a = attributes(node)
    x, y = node.input[0], node.output[0]
    kernel, sizes, out = a["kernel_shape"], b.shapes[x][2:], b.shapes[y][2:]
    strides, dilations, before, after = pads_of(a, sizes, kernel, out)
    tiles = all(k * o == n for k, o, n in zip(kernel, out, sizes, strict=True))
    if tiles and strides == list(kernel) and set(dilations) == {1} and not any([*before, *after]):
        # Windows beside one another: enlarged, both are looked at value by value, which is quicker.
        # A tie gets the cotangent more than once; it mostly is of zeros that a ReLU made.
        scales = b.const([1, 1, *kernel])
        largest, dy = (
            b.add(
                "Resize",
                name,
                "",
                scales,
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
            for name in (y, given[0])
        )
        return [b.add("Where", b.add("Equal", x, largest), dy, b.const(0))]
    kept = {n: v for n, v in a.items() if n != "storage_order"}
    from onnx import helper

    values, places = b.fresh(), b.fresh()
    b.nodes.append(helper.make_node("MaxPool", [x], [values, places], **kept))
    zeros = b.add("Mul", x, b.const(0))
    flat = b.ints([-1])
    found = b.add(
        "ScatterElements",
        b.add("Reshape", zeros, flat),
        b.add("Reshape", places, flat),
        b.add("Reshape", given[0], flat),
        axis=0,
        reduction="add",
    )
    return [b.reshaped_as(found, x)]


def _average_pool(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    a, x = attributes(node), node.input[0]
    kernel, sizes, out = a["kernel_shape"], b.shapes[x][2:], b.shapes[node.output[0]][2:]
    strides, dilations, before, after = pads_of(a, sizes, kernel, out)
    if set(dilations) != {1}:
        raise UnsupportedModelError("its AveragePool has no gradient", expected="no dilation")
    # As matrices, one an axis: what each window takes of each value.
    dy, rank = given[0], len(kernel)
    counts = []
    for i in range(rank):
        takes = np.zeros((out[i], sizes[i]), np.float32)
        count = np.zeros(out[i], np.float32)
        for o in range(out[i]):
            low = o * strides[i] - before[i]
            high = min(low + kernel[i], sizes[i] + after[i])
            inside = slice(max(low, 0), min(high, sizes[i]))
            takes[o, inside] = 1
            included = a.get("count_include_pad", 0)
            count[o] = high - low if included else inside.stop - inside.start
        counts.append(count)
        takes /= np.maximum(count, 1)[:, None]
        axis = 2 + i
        if axis == rank + 1:
            dy = b.add("MatMul", dy, b.const(takes))
        else:
            dy = _along(b, dy, takes, axis, rank + 2)
    return [dy]


def _along(b: Builder, dy: str, matrix: np.ndarray, axis: int, rank: int) -> str:
    if axis == rank - 2:
        return b.add("MatMul", b.const(matrix.T), dy)
    perm = [i for i in range(rank) if i != axis] + [axis]
    moved = b.add("MatMul", b.add("Transpose", dy, perm=perm), b.const(matrix))
    return b.add("Transpose", moved, perm=np.argsort(perm).tolist())


def _global_average(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    area = float(np.prod(b.shapes[node.input[0]][2:]))
    return [b.expanded_as(b.add("Div", given[0], b.const(area)), node.input[0])]


def _global_max(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    axes = list(range(2, len(b.shapes[node.input[0]])))
    return [_to_extremes(b, node.input[0], node.output[0], given[0], axes)]


def _to_extremes(b: Builder, x: str, y: str, dy: str, axes: list[int]) -> str:
    chosen = b.add("Cast", b.add("Equal", x, y), to=1)
    return b.add("Mul", chosen, b.add("Div", dy, b.summed(chosen, axes)))


def _axes(b: Builder, node: NodeProto) -> list[int]:
    """The axes of a reduction: an attribute once, an input since."""
    a, rank = attributes(node), len(b.shapes[node.input[0]])
    axes = b.constant(node, 1).tolist() if b.has(node, 1) else list(a.get("axes", []))
    if not axes and a.get("noop_with_empty_axes", 0):
        return []
    return sorted(axis % rank for axis in axes) or list(range(rank))


def _reduction(kind: str) -> Rule:
    def rule(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
        assert given[0] is not None
        x, y, dy = node.input[0], node.output[0], given[0]
        axes, none = _axes(b, node), [None] * (len(node.input) - 1)
        if not axes:
            return [dy, *none]
        if not attributes(node).get("keepdims", 1):
            dy, y = (b.add("Unsqueeze", name, b.ints(axes)) for name in (dy, y))
        if kind in ("max", "min"):
            return [_to_extremes(b, x, y, dy, axes), *none]
        if kind == "mean":
            count = float(np.prod([b.shapes[x][axis] for axis in axes]))
            dy = b.add("Div", dy, b.const(count))
        found = b.expanded_as(dy, x)
        if kind == "l1":
            found = b.add("Mul", found, b.add("Sign", x))
        elif kind == "l2":
            found = b.add("Mul", found, b.add("Div", x, b.add("Max", y, b.const(1e-12))))
        elif kind == "square":
            found = b.add("Mul", found, b.add("Mul", x, b.const(2)))
        elif kind == "logsumexp":
            found = b.add("Mul", found, b.add("Exp", b.add("Sub", x, y)))
        return [found, *none]

    return rule


def _softmax(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    axis, y = attributes(node).get("axis", -1), node.output[0]
    weighed = b.summed(b.add("Mul", given[0], y), [axis])
    return [b.add("Mul", y, b.add("Sub", given[0], weighed))]


def _log_softmax(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    axis, y = attributes(node).get("axis", -1), node.output[0]
    return [b.add("Sub", given[0], b.add("Mul", b.add("Exp", y), b.summed(given[0], [axis])))]


def _mean_over(b: Builder, value: str, axes: Sequence[int], count: float) -> str:
    return b.add("Div", b.summed(value, axes), b.const(count))


def _normalised(
    b: Builder, x: str, dy: str, axes: Sequence[int], epsilon: float, count: float
) -> str:
    """Gradient of (x - mean) / std over axes of `count` values, dy being the quotient's."""
    centred = b.add("Sub", x, _mean_over(b, x, axes, count))
    variance = _mean_over(b, b.add("Mul", centred, centred), axes, count)
    std = b.add("Sqrt", b.add("Add", variance, b.const(epsilon)))
    unit = b.add("Div", centred, std)
    along = b.add("Mul", unit, _mean_over(b, b.add("Mul", dy, unit), axes, count))
    rest = b.add("Sub", b.add("Sub", dy, _mean_over(b, dy, axes, count)), along)
    return b.add("Div", rest, std)


def _layer_norm(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    a, x = attributes(node), node.input[0]
    rank = len(b.shapes[x])
    axes = list(range(a.get("axis", -1) % rank, rank))
    scaled = b.add("Mul", given[0], node.input[1])
    found = _normalised(b, x, scaled, axes, a.get("epsilon", 1e-5), _count(b, x, axes))
    return [found, *[None] * (len(node.input) - 1)]


def _instance_norm(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    x = node.input[0]
    rank = len(b.shapes[x])
    scale = b.constant(node, 1).reshape(-1, *[1] * (rank - 2))
    scaled = b.add("Mul", given[0], b.const(scale))
    epsilon = attributes(node).get("epsilon", 1e-5)
    axes = list(range(2, rank))
    return [_normalised(b, x, scaled, axes, epsilon, _count(b, x, axes)), None, None]


def _count(b: Builder, x: str, axes: Sequence[int]) -> float:
    return float(np.prod([b.shapes[x][axis] for axis in axes]))


def _group_norm(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """The scale is one a channel, in opsets before 21 one a group."""
    assert given[0] is not None
    a, x = attributes(node), node.input[0]
    groups, (_, channels, *sides) = a["num_groups"], b.shapes[x]
    scale = b.constant(node, 1)
    each = np.repeat(scale, channels // scale.size).reshape(-1, *[1] * len(sides))
    count = channels // groups * int(np.prod(sides))
    flat = b.ints([-1, groups, count])
    scaled = b.add("Reshape", b.add("Mul", given[0], b.const(each)), flat)
    own = b.add("Reshape", x, flat)
    found = _normalised(b, own, scaled, [2], a.get("epsilon", 1e-5), count)
    return [b.reshaped_as(found, x), None, None]


def _local_response(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Of x / d^beta with d = bias + alpha / size * (sum of squares of the channels beside)."""
    assert given[0] is not None
    a, x = attributes(node), node.input[0]
    size, beta, channels = a["size"], a.get("beta", 0.75), b.shapes[x][1]
    share = a.get("alpha", 1e-4) / size
    low, high = (size - 1) // 2, size - 1 - (size - 1) // 2
    beside = np.array([[-low <= j - i <= high for j in range(channels)] for i in range(channels)])
    ones = beside.astype(np.float32)[..., None, None]
    squares = b.add("Conv", b.add("Mul", x, x), b.const(ones))
    d = b.add("Add", b.add("Mul", squares, b.const(share)), b.const(a.get("bias", 1.0)))
    own = b.add("Mul", given[0], b.add("Pow", d, b.const(-beta)))
    inner = b.add("Mul", b.add("Mul", given[0], x), b.add("Pow", d, b.const(-beta - 1)))
    back = b.add("Conv", inner, b.const(ones.swapaxes(0, 1)))
    others = b.add("Mul", b.add("Mul", back, x), b.const(2 * share * beta))
    return [b.add("Sub", own, others)]


REDUCING: Final[dict[str, Rule]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "ReduceSum": _reduction("sum"),
    "ReduceMean": _reduction("mean"),
    "ReduceMax": _reduction("max"),
    "ReduceMin": _reduction("min"),
    "ReduceL1": _reduction("l1"),
    "ReduceL2": _reduction("l2"),
    "ReduceSumSquare": _reduction("square"),
    "ReduceLogSumExp": _reduction("logsumexp"),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LRN": _local_response,
}
