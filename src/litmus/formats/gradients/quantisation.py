"""Gradients of quantised operators, straight through the rounding.

The cotangent of a value in whole numbers is one of floats, by its unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError
from litmus.formats.gradients.convolutions import Window, convolution_backward

__all__ = [
    "convolve_integers",
    "dequantise",
    "dynamic_quantise",
    "multiply_integers",
    "quantise",
    "quantised_convolution",
    "quantised_product",
]


def _along(b: Builder, node: Node, values: NDArray[Any]) -> str:
    """A scale, or one for each place of the node's axis, that broadcasts to its input."""
    if node.get("block_size", 0):
        raise NoGradientError("it has a scale for each block")
    rank = len(b.shape(node.inputs[0]))
    if values.size == 1 or not rank:
        return b.const(values.reshape(-1)[0])
    shape = [1] * rank
    shape[node.get("axis", 1)] = -1
    return b.const(values.astype(np.float32).reshape(shape))


def quantise(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """QuantizeLinear: nothing passes where the range ends."""
    x, y = node.inputs[0], node.outputs[0]
    scale = b.known(node.inputs[1], "scale")
    kind = b.types[y]
    if np.dtype(kind).kind not in "iu":
        raise NoGradientError("its numbers are not whole")
    limits = np.iinfo(kind)
    zero = b.optional(node, 2, "zero point")
    shift = 0.0 if zero is None else zero.astype(np.float32)
    low, high = ((end - shift) * scale for end in (limits.min - 0.5, limits.max + 0.5))
    ends = [_along(b, node, np.asarray(v)) for v in (low, high)]
    inside = b.op("Mul", b.mask("GreaterOrEqual", x, ends[0]), b.mask("LessOrEqual", x, ends[1]))
    dx = b.op("Div", b.op("Mul", str(cotangents[0]), inside), _along(b, node, scale))
    return [dx, *[None] * (len(node.inputs) - 1)]


def dequantise(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """DequantizeLinear."""
    name = node.inputs[1]
    known = b.value(name)
    scale = name if known is None else _along(b, node, known)
    dx = b.op("Mul", str(cotangents[0]), scale)
    return [dx, *[None] * (len(node.inputs) - 1)]


def dynamic_quantise(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """DynamicQuantizeLinear, whose scale is taken as a constant."""
    if cotangents[0] is None:
        return [None]
    return [b.op("Div", cotangents[0], node.outputs[1])]


def _real(values: NDArray[Any], zero: NDArray[Any] | None, axis: int) -> NDArray[Any]:
    """Whole numbers less their zero point, one or one for each place of an axis."""
    shift = np.zeros(1, np.float32) if zero is None else zero.astype(np.float32)
    if shift.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        shift = shift.reshape(shape)
    return np.asarray(values.astype(np.float32) - shift.reshape(shift.shape or (1,)))


def _scaled(values: NDArray[Any], scale: NDArray[Any], axis: int) -> NDArray[Any]:
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = -1
    scaled: NDArray[Any] = (values * scale.reshape(shape)).astype(np.float32)
    return scaled


def _first(node: Node, dx: str) -> Cotangents:
    return [dx, *[None] * (len(node.inputs) - 1)]


def quantised_convolution(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """QLinearConv."""
    x_scale, w, w_scale, w_zero, y_scale = (
        b.known(node.inputs[i], "weight") for i in (1, 3, 4, 5, 6)
    )
    weights = _scaled(_real(w, w_zero, 0), w_scale * x_scale / y_scale, 0)
    return _first(node, _back(node, b, _unless_at_limit(node, b, cotangents), weights))


def _unless_at_limit(node: Node, b: Builder, cotangents: Cotangents) -> str:
    """The cotangent of the output, zero where its type ends."""
    limits = np.iinfo(b.types[node.outputs[0]])
    real = b.op("Cast", node.outputs[0], to=1)
    masks = (
        b.mask("Greater", real, b.const(limits.min)),
        b.mask("Less", real, b.const(limits.max)),
    )
    return b.op("Mul", str(cotangents[0]), b.op("Mul", *masks))


def _back(node: Node, b: Builder, dy: str, weights: NDArray[Any]) -> str:
    window = Window.of(node, b, weights.shape[2:])
    names = (node.inputs[0], node.outputs[0])
    return convolution_backward(b, dy, weights, window, node.get("group", 1), names)


def convolve_integers(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """ConvInteger."""
    weights = _real(b.known(node.inputs[1], "weight"), b.optional(node, 3, "zero point"), 0)
    return _first(node, _back(node, b, str(cotangents[0]), weights))


def quantised_product(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """QLinearMatMul with constant weights."""
    x_scale, w, w_scale, w_zero, y_scale = (
        b.known(node.inputs[i], "weight") for i in (1, 3, 4, 5, 6)
    )
    weights = _scaled(_real(w, w_zero, -1), w_scale * x_scale / y_scale, -1)
    dy = _unless_at_limit(node, b, cotangents)
    return _first(node, b.op("MatMul", dy, b.const(weights.swapaxes(-1, -2))))


def multiply_integers(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """MatMulInteger with constant weights."""
    weights = _real(b.known(node.inputs[1], "weight"), b.optional(node, 3, "zero point"), -1)
    return _first(node, b.op("MatMul", str(cotangents[0]), b.const(weights.swapaxes(-1, -2))))
