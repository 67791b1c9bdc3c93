"""Gradients of pooling."""

from __future__ import annotations

import numpy as np

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError
from litmus.formats.gradients.convolutions import Window

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "lp_pool", "max_pool"]


def _is_even(node: Node, b: Builder, window: Window) -> bool:
    """Whether the windows cover the image without gap or overlap."""
    plain = window.kernel == window.strides and not any(window.pads)
    return (
        plain
        and set(window.dilations) == {1}
        and len(window.kernel) == 2
        and all(b.size(node.inputs[0], 2 + i) % k == 0 for i, k in enumerate(window.kernel))
    )


def _repeated(b: Builder, value: str, window: Window) -> str:
    """Each number of (n, c, h, w) as often as a window has places."""
    return b.op(
        "Resize",
        value,
        "",
        b.const([1, 1, *window.kernel]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def max_pool(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """MaxPool; where windows do not overlap, equal largest ones share."""
    dy, x, y = str(cotangents[0]), node.inputs[0], node.outputs[0]
    kernel = tuple(node.get("kernel_shape"))
    window = Window.of(node, b, kernel)
    if _is_even(node, b, window):
        mask = b.mask("Equal", _repeated(b, y, window), x)
        attributes = {"kernel_shape": kernel, "strides": kernel}
        shares = b.op("AveragePool", mask, **attributes)
        share = b.op("Div", dy, b.op("Mul", shares, b.const(float(np.prod(kernel)))))
        return [b.op("Mul", mask, _repeated(b, share, window))]
    return [_scattered(node, b, dy)]


def _scattered(node: Node, b: Builder, dy: str) -> str:
    """Add each number at the place that the pooling took it from."""
    x = node.inputs[0]
    if len(node.proto.output) < 2 or not node.proto.output[1]:
        del node.proto.output[1:]
        node.proto.output.append(b.fresh())
    if node.get("storage_order", 0):
        raise NoGradientError("its indices are by columns")
    flat = b.ints(-1)
    empty = b.op("Reshape", b.zeros(x), flat)
    indices = b.op("Reshape", node.proto.output[1], flat)
    values = b.op("Reshape", dy, flat)
    total = b.op("ScatterElements", empty, indices, values, axis=0, reduction="add")
    return b.reshaped(total, x)


def average_pool(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """AveragePool, a matrix along each axis."""
    dy, x = str(cotangents[0]), node.inputs[0]
    kernel = tuple(node.get("kernel_shape"))
    window = Window.of(node, b, kernel)
    if _is_even(node, b, window):
        return [_repeated(b, b.op("Mul", dy, b.const(1 / float(np.prod(kernel)))), window)]
    rank = len(kernel)
    shared = {
        "ceil_mode": node.get("ceil_mode", 0),
        "count_include_pad": node.get("count_include_pad", 0),
    }
    if set(window.dilations) != {1}:
        raise NoGradientError("it is dilated")
    for i in range(rank):
        size = b.size(x, 2 + i)
        matrix = b.matrix(
            "AveragePool",
            size,
            kernel_shape=[kernel[i]],
            strides=[window.strides[i]],
            pads=[window.pads[i], window.pads[rank + i]],
            **shared,
        )
        if matrix.shape[1] != b.size(node.outputs[0], 2 + i):
            raise NoGradientError("its sizes are odd")
        dy = b.along(dy, rank + 2, 2 + i, matrix.T)
    return [dy]


def global_average_pool(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """GlobalAveragePool."""
    x = node.inputs[0]
    count = np.prod([b.size(x, i) for i in range(2, len(b.shape(x)))])
    return [b.expanded(b.op("Mul", str(cotangents[0]), b.const(1 / count)), x)]


def global_max_pool(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """GlobalMaxPool; equal ones share."""
    x = node.inputs[0]
    mask = b.mask("Equal", x, node.outputs[0])
    axes = b.ints(*range(2, len(b.shape(x))))
    share = b.op("Div", str(cotangents[0]), b.op("ReduceSum", mask, axes, keepdims=1))
    return [b.op("Mul", mask, share)]


def lp_pool(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """LpPool of the second power: x / y, summed over the windows."""
    if node.get("p", 2) != 2:
        raise NoGradientError("its power is not 2")
    dy, x = str(cotangents[0]), node.inputs[0]
    kernel = tuple(node.get("kernel_shape"))
    window = Window.of(node, b, kernel)
    if set(window.dilations) != {1}:
        raise NoGradientError("it is dilated")
    dy = b.op("Div", dy, b.op("Max", node.outputs[0], b.const(1e-30)))
    rank = len(kernel)
    for i in range(rank):
        matrix = b.matrix(
            "AveragePool",
            b.size(x, 2 + i),
            kernel_shape=[kernel[i]],
            strides=[window.strides[i]],
            pads=[window.pads[i], window.pads[rank + i]],
            ceil_mode=node.get("ceil_mode", 0),
            count_include_pad=1,
        )
        dy = b.along(dy, rank + 2, 2 + i, (matrix.T > 0).astype(np.float32))
    return [b.op("Mul", dy, x)]
