"""Gradients of normalisation."""

from __future__ import annotations

import math

import numpy as np

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "lp_norm",
    "mean_variance_norm",
]


def batch_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """BatchNormalization: a factor for each channel."""
    if node.get("training_mode", 0):
        raise NoGradientError("it is in training mode")
    names = node.inputs
    scale, variance = b.known(names[1], "scale"), b.known(names[4], "variance")
    factors = scale / np.sqrt(variance + node.get("epsilon", 1e-5))
    shape = [-1, *[1] * (len(b.shape(names[0])) - 2)]
    return [b.op("Mul", str(cotangents[0]), b.const(factors.reshape(shape))), *[None] * 4]


def _normalised(b: Builder, x: str, g: str, axes: list[int], epsilon: float) -> str:
    """The cotangent of x where g is that of (x - mean) / sqrt(variance + epsilon)."""
    places = b.ints(*axes)

    def mean(value: str) -> str:
        return b.op("ReduceMean", value, places, keepdims=1)

    centred = b.op("Sub", x, mean(x))
    variance = mean(b.op("Mul", centred, centred))
    inverse = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.const(epsilon))))
    values = b.op("Mul", centred, inverse)
    slope = b.op("Mul", values, mean(b.op("Mul", g, values)))
    return b.op("Mul", b.op("Sub", b.op("Sub", g, mean(g)), slope), inverse)


def instance_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """InstanceNormalization."""
    x = node.inputs[0]
    rank = len(b.shape(x))
    scale = b.known(node.inputs[1], "scale").reshape(-1, *[1] * (rank - 2))
    g = b.op("Mul", str(cotangents[0]), b.const(scale))
    axes = list(range(2, rank))
    return [_normalised(b, x, g, axes, node.get("epsilon", 1e-5)), None, None]


def layer_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """LayerNormalization; its scale is a constant, and only its first output is used."""
    if any(given is not None for given in cotangents[1:]) or cotangents[0] is None:
        raise NoGradientError("its mean or deviation is used")
    x, scale = node.inputs[:2]
    if any(b.needs(name) for name in node.inputs[1:] if name):
        raise NoGradientError("its scale is no constant")
    rank = len(b.shape(x))
    axes = list(range(node.get("axis", -1) % rank, rank))
    g = b.op("Mul", cotangents[0], scale)
    dx = _normalised(b, x, g, axes, node.get("epsilon", 1e-5))
    return [dx, *[None] * (len(node.inputs) - 1)]


def group_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """GroupNormalization, scaled by channel or, before opset 21, by group."""
    x, groups = node.inputs[0], node.get("num_groups")
    channels, rank = b.size(x, 1), len(b.shape(x))
    scale = b.known(node.inputs[1], "scale").reshape(-1)
    scale = np.repeat(scale, channels // scale.size).reshape(-1, *[1] * (rank - 2))
    g = b.op("Mul", str(cotangents[0]), b.const(scale))
    shape = b.ints(0, groups, -1)
    values, g = b.op("Reshape", x, shape), b.op("Reshape", g, shape)
    dx = _normalised(b, values, g, [2], node.get("epsilon", 1e-5))
    return [b.reshaped(dx, x), None, None]


def mean_variance_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """MeanVarianceNormalization."""
    axes = list(node.get("axes", [0, 2, 3]))
    if 0 in axes:
        raise NoGradientError("it works along the axis of the images")
    return [_normalised(b, node.inputs[0], str(cotangents[0]), axes, 1e-9)]


def lp_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """LpNormalization of the second power."""
    if node.get("p", 2) != 2:
        raise NoGradientError("its power is not 2")
    dy, x, y = str(cotangents[0]), node.inputs[0], node.outputs[0]
    places = b.ints(node.get("axis", -1))
    norm = b.op("Max", b.op("ReduceL2", x, places, keepdims=1), b.const(1e-30))
    along = b.op("ReduceSum", b.op("Mul", dy, y), places, keepdims=1)
    return [b.op("Div", b.op("Sub", dy, b.op("Mul", y, along)), norm)]


def local_response_norm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """LRN: y = x / d^beta, where d is made of the squares of neighbouring channels."""
    dy, x, y = str(cotangents[0]), node.inputs[0], node.outputs[0]
    channels, rank, size = b.size(x, 1), len(b.shape(x)), node.get("size")
    alpha, beta = node.get("alpha", 1e-4), node.get("beta", 0.75)
    offsets = np.arange(channels)[:, None] - np.arange(channels)
    before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
    # Of channel j (columns), its neighbours i (rows) from j - before to j + after.
    near = ((offsets >= -before) & (offsets <= after)).astype(np.float32)
    squares = b.along(b.op("Mul", x, x), rank, 1, near * (alpha / size))
    d = b.op("Add", squares, b.const(node.get("bias", 1.0)))
    direct = b.op("Mul", dy, b.op("Pow", d, b.const(-beta)))
    others = b.along(b.op("Div", b.op("Mul", dy, y), d), rank, 1, near.T)
    factor = b.const(-2 * alpha * beta / size)
    return [b.op("Add", direct, b.op("Mul", b.op("Mul", x, others), factor))]
