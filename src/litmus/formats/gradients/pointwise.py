"""Gradients of what is done value by value: arithmetic with broadcasting, and activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.formats.gradients.builder import Builder, Rule, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["POINTWISE"]

Cotangents = Sequence[str | None]
Slope = Callable[[Builder, str, str, dict[str, Any]], str]


def _broadcast(partial: Callable[[Builder, NodeProto, int, str], str]) -> Rule:
    """Make a rule of what a cotangent is to each input, before broadcasting is undone."""

    def rule(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
        assert given[0] is not None
        shape = b.shapes[node.output[0]]
        return [
            b.unbroadcast(partial(b, node, i, given[0]), shape, name) if name in b.active else None
            for i, name in enumerate(node.input)
        ]

    return rule


def _sub(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    return b.add("Neg", dy) if index else dy


def _mul(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    return b.add("Mul", dy, node.input[1 - index])


def _div(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    found = b.add("Div", dy, node.input[1])
    return b.add("Neg", b.add("Mul", found, node.output[0])) if index else found


def _pow(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    base, power = node.input
    if index:
        return b.add("Mul", dy, b.add("Mul", node.output[0], b.add("Log", base)))
    less = b.add("Pow", base, b.add("Sub", power, b.const(1)))
    return b.add("Mul", dy, b.add("Mul", less, power))


def _extreme(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    """Of Min and Max: to all that are the smallest or largest."""
    return _where(b, b.add("Equal", node.input[index], node.output[0]), dy)


def _mean(b: Builder, node: NodeProto, index: int, dy: str) -> str:
    return b.add("Div", dy, b.const(len(node.input)))


def _where(b: Builder, condition: str, dy: str) -> str:
    return b.add("Where", condition, dy, b.const(0))


def _chosen(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Of Where."""
    assert given[0] is not None
    shape, found = b.shapes[node.output[0]], [None]
    sides: list[str | None] = [*found]
    for index in (1, 2):
        if node.input[index] not in b.active:
            sides.append(None)
            continue
        values = (given[0], b.const(0)) if index == 1 else (b.const(0), given[0])
        taken = b.add("Where", node.input[0], *values)
        sides.append(b.unbroadcast(taken, shape, node.input[index]))
    return sides


def _prelu(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    positive = b.add("Greater", node.input[0], b.const(0))
    slope = b.add("Where", positive, b.const(1), node.input[1])
    return [b.add("Mul", given[0], slope), None]


def _same(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Of what leaves values alone, or rounds them: straight through."""
    return [given[0], *[None] * (len(node.input) - 1)]


def _scaled(slope: Slope) -> Rule:
    """Make a rule of the slope at x, given y and the node's attributes."""

    def rule(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
        assert given[0] is not None
        found = slope(b, node.input[0], node.output[0], attributes(node))
        return [b.add("Mul", given[0], found), *[None] * (len(node.input) - 1)]

    return rule


def _gated(b: Builder, x: str, above: str, below: str) -> str:
    return b.add("Where", b.add("Greater", x, b.const(0)), above, below)


def _relu(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    return [_where(b, b.add("Greater", node.output[0], b.const(0)), given[0])]


def _clip(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    found = given[0]
    for index, comparison in ((1, "Greater"), (2, "Less")):
        if b.has(node, index):
            inside = b.add(comparison, node.input[0], node.input[index])
            found = _where(b, inside, found)
    return [found, *[None] * (len(node.input) - 1)]


def _leaky(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    return _gated(b, x, b.const(1), b.const(a.get("alpha", 0.01)))


def _elu(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    return _gated(b, x, b.const(1), b.add("Add", y, b.const(a.get("alpha", 1.0))))


def _selu(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    gamma = a.get("gamma", 1.0507009873554805)
    shift = gamma * a.get("alpha", 1.6732632423543772)
    return _gated(b, x, b.const(gamma), b.add("Add", y, b.const(shift)))


def _celu(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    alpha = a.get("alpha", 1.0)
    return _gated(b, x, b.const(1), b.add("Add", b.add("Div", y, b.const(alpha)), b.const(1)))


def _sigmoid(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    return b.add("Mul", y, b.add("Sub", b.const(1), y))


def _hard_sigmoid(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    inside = b.add("And", b.add("Greater", y, b.const(0)), b.add("Less", y, b.const(1)))
    return b.add("Where", inside, b.const(a.get("alpha", 0.2)), b.const(0))


def _hard_swish(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    inside = b.add("Add", b.add("Div", x, b.const(3)), b.const(0.5))
    lower = b.add("Where", b.add("Greater", x, b.const(-3)), inside, b.const(0))
    return b.add("Where", b.add("Less", x, b.const(3)), lower, b.const(1))


def _tanh(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    return b.add("Sub", b.const(1), b.add("Mul", y, y))


def _softplus(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    return b.add("Sigmoid", x)


def _softsign(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    below = b.add("Add", b.const(1), b.add("Abs", x))
    return b.add("Reciprocal", b.add("Mul", below, below))


def _erf(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    bell = b.add("Exp", b.add("Neg", b.add("Mul", x, x)))
    return b.add("Mul", bell, b.const(2 / math.sqrt(math.pi)))


def _gelu(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    square = b.add("Mul", x, x)
    if a.get("approximate", "none") == "tanh":
        c = math.sqrt(2 / math.pi)
        cubic = b.add("Add", b.const(1), b.add("Mul", square, b.const(0.044715)))
        t = b.add("Tanh", b.add("Mul", b.add("Mul", x, cubic), b.const(c)))
        inner = b.add("Add", b.const(c), b.add("Mul", square, b.const(3 * 0.044715 * c)))
        curve = b.add("Mul", b.add("Mul", x, inner), _tanh(b, x, t, a))
        return b.add("Mul", b.const(0.5), b.add("Add", b.add("Add", b.const(1), t), curve))
    below = b.add("Erf", b.add("Mul", x, b.const(math.sqrt(0.5))))
    cumulative = b.add("Mul", b.const(0.5), b.add("Add", b.const(1), below))
    bell = b.add("Exp", b.add("Mul", square, b.const(-0.5)))
    density = b.add("Mul", b.add("Mul", x, bell), b.const(1 / math.sqrt(2 * math.pi)))
    return b.add("Add", cumulative, density)


def _mish(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
    t = b.add("Tanh", b.add("Softplus", x))
    curve = b.add("Mul", b.add("Mul", x, b.add("Sigmoid", x)), _tanh(b, x, t, a))
    return b.add("Add", t, curve)


def _power(p: float, scale: float) -> Slope:
    def slope(b: Builder, x: str, y: str, a: dict[str, Any]) -> str:
        return b.add("Mul", b.add("Pow", x, b.const(p)), b.const(scale))

    return slope


POINTWISE: Final[dict[str, Rule]] = {
    "Add": _broadcast(lambda b, node, index, dy: dy),
    "Sum": _broadcast(lambda b, node, index, dy: dy),
    "Sub": _broadcast(_sub),
    "Mul": _broadcast(_mul),
    "Div": _broadcast(_div),
    "Pow": _broadcast(_pow),
    "Min": _broadcast(_extreme),
    "Max": _broadcast(_extreme),
    "Mean": _broadcast(_mean),
    "Where": _chosen,
    "PRelu": _prelu,
    "Relu": _relu,
    "Clip": _clip,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _same,
    "CastLike": _same,
    "QuantizeLinear": lambda b, n, g: [_over_scale(b, n, g[0]), *[None] * (len(n.input) - 1)],
    "DequantizeLinear": lambda b, n, g: [
        b.add("Mul", str(g[0]), _channel_scale(b, n)),
        *[None] * (len(n.input) - 1),
    ],
    "LeakyRelu": _scaled(_leaky),
    "Elu": _scaled(_elu),
    "Selu": _scaled(_selu),
    "Celu": _scaled(_celu),
    "Sigmoid": _scaled(_sigmoid),
    "HardSigmoid": _scaled(_hard_sigmoid),
    "HardSwish": _scaled(_hard_swish),
    "Tanh": _scaled(_tanh),
    "Softplus": _scaled(_softplus),
    "Softsign": _scaled(_softsign),
    "Erf": _scaled(_erf),
    "Gelu": _scaled(_gelu),
    "Mish": _scaled(_mish),
    "Exp": _scaled(lambda b, x, y, a: y),
    "Log": _scaled(_power(-1, 1)),
    "Sqrt": _scaled(lambda b, x, y, a: b.add("Div", b.const(0.5), y)),
    "Reciprocal": _scaled(_power(-2, -1)),
    "Abs": _scaled(lambda b, x, y, a: b.add("Sign", x)),
    "Neg": _scaled(lambda b, x, y, a: b.const(-1)),
    "Sin": _scaled(lambda b, x, y, a: b.add("Cos", x)),
    "Cos": _scaled(lambda b, x, y, a: b.add("Neg", b.add("Sin", x))),
}


def _channel_scale(b: Builder, node: NodeProto) -> str:
    """The scale of a (de)quantisation, in a shape that broadcasts."""
    scale = b.constant(node, 1)
    if scale.size == 1:
        return b.const(scale.reshape(()))
    rank = len(b.shapes[node.output[0]])
    shape = np.ones(rank, dtype=int)
    shape[attributes(node).get("axis", 1)] = scale.size
    return b.const(scale.reshape(shape))


def _over_scale(b: Builder, node: NodeProto, dy: str | None) -> str:
    """Straight through the rounding, where the value was inside what the integers can hold."""
    return b.add("Div", str(dy), _channel_scale(b, node))
