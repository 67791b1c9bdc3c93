"""Gradients of sums, means, norms and largest ones along axes, and of softmax."""

from __future__ import annotations

import math

from litmus.formats.gradients.builder import Builder, Cotangents, Node

__all__ = ["log_softmax", "reduction", "softmax"]


def reduction(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Every operator Reduce..., by its name."""
    x = node.inputs[0]
    rank = len(b.shape(x))
    given = b.optional(node, 1, "axis")
    if given is None or not given.size:
        if node.get("noop_with_empty_axes", 0):
            return _whole(node, str(_slope(node, b, x, node.outputs[0], str(cotangents[0]), [])))
        axes = list(range(rank))
    else:
        axes = sorted(int(axis) % rank for axis in given.reshape(-1))
    dy, y = str(cotangents[0]), node.outputs[0]
    if not node.get("keepdims", 1):
        places = b.ints(*axes)
        dy, y = b.op("Unsqueeze", dy, places), b.op("Unsqueeze", y, places)
    return _whole(node, _slope(node, b, x, y, dy, axes))


def _whole(node: Node, dx: str) -> Cotangents:
    return [dx, *[None] * (len(node.inputs) - 1)]


def _slope(node: Node, b: Builder, x: str, y: str, dy: str, axes: list[int]) -> str:
    """The cotangent of x (n, ...), with y and dy of size 1 along the axes."""
    kind = node.kind.removeprefix("Reduce")
    if kind == "Sum":
        return b.expanded(dy, x)
    if kind == "Mean":
        count = math.prod(b.size(x, axis) for axis in axes)
        return b.expanded(b.op("Mul", dy, b.const(1 / count)), x)
    if kind in ("Max", "Min"):
        mask = b.mask("Equal", x, y)
        count_of = b.op("ReduceSum", mask, b.ints(*axes), keepdims=1)
        return b.op("Mul", mask, b.op("Div", dy, count_of))
    if kind == "L1":
        return b.op("Mul", dy, b.op("Sign", x))
    if kind == "L2":
        return b.op("Mul", b.op("Div", dy, b.op("Max", y, b.const(1e-30))), x)
    if kind == "SumSquare":
        return b.op("Mul", b.op("Mul", dy, b.const(2.0)), x)
    if kind == "LogSum":
        return b.expanded(b.op("Mul", dy, b.op("Exp", b.op("Neg", y))), x)
    if kind == "LogSumExp":
        return b.op("Mul", dy, b.op("Exp", b.op("Sub", x, y)))
    return b.op("Div", b.op("Mul", dy, y), x)  # of a product


def softmax(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Softmax."""
    y = node.outputs[0]
    weighted = b.op("Mul", str(cotangents[0]), y)
    axes = b.ints(node.get("axis", -1))
    total = b.op("ReduceSum", weighted, axes, keepdims=1)
    return [b.op("Sub", weighted, b.op("Mul", y, total))]


def log_softmax(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """LogSoftmax."""
    dy = str(cotangents[0])
    total = b.op("ReduceSum", dy, b.ints(node.get("axis", -1)), keepdims=1)
    return [b.op("Sub", dy, b.op("Mul", b.op("Exp", node.outputs[0]), total))]
