"""Gradients of functions of each number alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from litmus.formats.gradients.builder import Builder, Cotangents, Node, Rule

__all__ = ["ACTIVATIONS"]

Slope = Callable[[Node, Builder, str, str], str]
"""Takes the names of input and output, returns that of the derivative."""


def _by(slope: Slope) -> Rule:
    def rule(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
        x, y = node.inputs[0], node.outputs[0]
        product = b.op("Mul", str(cotangents[0]), slope(node, b, x, y))
        return [product, *[None] * (len(node.inputs) - 1)]

    return rule


def _one_minus(b: Builder, name: str) -> str:
    return b.op("Sub", b.const(1.0), name)


def _positive(b: Builder, name: str) -> str:
    """1 above 0, else 0."""
    return b.mask("Greater", name, b.const(0.0))


def _mixed(b: Builder, x: str, above: float, below: str) -> str:
    """`above` where x > 0, else `below`; `below` must be finite."""
    chosen = _positive(b, x)
    high = b.op("Mul", chosen, b.const(above))
    return b.op("Add", high, b.op("Mul", _one_minus(b, chosen), below))


def _relu(node: Node, b: Builder, x: str, y: str) -> str:
    return _positive(b, y)


def _leaky_relu(node: Node, b: Builder, x: str, y: str) -> str:
    alpha = node.get("alpha", 0.01)
    return b.op("Add", b.op("Mul", _positive(b, x), b.const(1 - alpha)), b.const(alpha))


def _prelu(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    dy, (x, slope) = str(cotangents[0]), node.inputs
    above = _positive(b, x)
    below = _one_minus(b, above)
    own = b.op("Mul", dy, b.op("Add", above, b.op("Mul", below, slope)))
    other = None
    if b.needs(slope):
        other = b.fit(b.op("Mul", dy, b.op("Mul", below, x)), slope, node)
    return [own, other]


def _elu(node: Node, b: Builder, x: str, y: str) -> str:
    alpha = node.get("alpha", 1.0)
    return _mixed(b, x, 1.0, b.op("Add", y, b.const(alpha)))


def _selu(node: Node, b: Builder, x: str, y: str) -> str:
    alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.0507010)
    return _mixed(b, x, gamma, b.op("Add", y, b.const(alpha * gamma)))


def _celu(node: Node, b: Builder, x: str, y: str) -> str:
    alpha = node.get("alpha", 1.0)
    below = b.op("Add", b.op("Mul", y, b.const(1 / alpha)), b.const(1.0))
    return _mixed(b, x, 1.0, below)


def _thresholded(node: Node, b: Builder, x: str, y: str) -> str:
    return b.mask("Greater", x, b.const(node.get("alpha", 1.0)))


def _sigmoid(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Mul", y, _one_minus(b, y))


def _tanh(node: Node, b: Builder, x: str, y: str) -> str:
    return _one_minus(b, b.op("Mul", y, y))


def _within(b: Builder, x: str, low: float, high: float) -> str:
    return b.op("Mul", b.mask("Greater", x, b.const(low)), b.mask("Less", x, b.const(high)))


def _hard_sigmoid(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Mul", _within(b, y, 0.0, 1.0), b.const(node.get("alpha", 0.2)))


def _hard_swish(node: Node, b: Builder, x: str, y: str) -> str:
    line = b.op("Add", b.op("Mul", x, b.const(1 / 3)), b.const(0.5))
    inside = b.op("Mul", _within(b, x, -3.0, 3.0), line)
    return b.op("Add", inside, b.mask("GreaterOrEqual", x, b.const(3.0)))


def _softplus(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Sigmoid", x)


def _softsign(node: Node, b: Builder, x: str, y: str) -> str:
    side = _one_minus(b, b.op("Abs", y))
    return b.op("Mul", side, side)


def _bell(b: Builder, x: str) -> str:
    """exp(-x^2 / 2) / sqrt(2 pi)."""
    power = b.op("Exp", b.op("Mul", b.op("Mul", x, x), b.const(-0.5)))
    return b.op("Mul", power, b.const(1 / math.sqrt(2 * math.pi)))


def _gelu(node: Node, b: Builder, x: str, y: str) -> str:
    if node.get("approximate", "none") == "tanh":
        return _gelu_of_tanh(b, x)
    error = b.op("Erf", b.op("Mul", x, b.const(math.sqrt(0.5))))
    share = b.op("Add", b.op("Mul", error, b.const(0.5)), b.const(0.5))
    return b.op("Add", share, b.op("Mul", x, _bell(b, x)))


def _gelu_of_tanh(b: Builder, x: str) -> str:
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    square = b.op("Mul", x, x)
    inner = b.op("Add", b.op("Mul", square, b.const(root * cubic)), b.const(root))
    t = b.op("Tanh", b.op("Mul", x, inner))
    steep = b.op("Add", b.op("Mul", square, b.const(3 * root * cubic)), b.const(root))
    second = b.op("Mul", b.op("Mul", x, steep), _one_minus(b, b.op("Mul", t, t)))
    return b.op("Mul", b.op("Add", b.op("Add", t, second), b.const(1.0)), b.const(0.5))


def _mish(node: Node, b: Builder, x: str, y: str) -> str:
    t = b.op("Tanh", b.op("Softplus", x))
    bend = b.op("Mul", b.op("Sigmoid", x), _one_minus(b, b.op("Mul", t, t)))
    return b.op("Add", t, b.op("Mul", x, bend))


def _swish(node: Node, b: Builder, x: str, y: str) -> str:
    alpha = b.const(node.get("alpha", 1.0))
    s = b.op("Sigmoid", b.op("Mul", x, alpha))
    bend = b.op("Mul", b.op("Mul", y, alpha), _one_minus(b, s))
    return b.op("Add", s, bend)


def _erf(node: Node, b: Builder, x: str, y: str) -> str:
    power = b.op("Exp", b.op("Neg", b.op("Mul", x, x)))
    return b.op("Mul", power, b.const(2 / math.sqrt(math.pi)))


def _exp(node: Node, b: Builder, x: str, y: str) -> str:
    return y


def _log(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Reciprocal", x)


def _sqrt(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Div", b.const(0.5), y)


def _abs(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Sign", x)


def _neg(node: Node, b: Builder, x: str, y: str) -> str:
    return b.const(-1.0)


def _reciprocal(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Neg", b.op("Mul", y, y))


def _sin(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Cos", x)


def _cos(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Neg", b.op("Sin", x))


def _atan(node: Node, b: Builder, x: str, y: str) -> str:
    return b.op("Reciprocal", b.op("Add", b.op("Mul", x, x), b.const(1.0)))


def _clip(node: Node, b: Builder, x: str, y: str) -> str:
    """PyTorch, too, lets the gradient through at the limits themselves."""
    limits = [b.optional(node, 1, "limit"), b.optional(node, 2, "limit")]
    ends = [float(np.reshape(v, -1)[0]) if v is not None else None for v in limits]
    masks = [
        b.mask(kind, x, b.const(end))
        for kind, end in zip(("GreaterOrEqual", "LessOrEqual"), ends, strict=True)
        if end is not None
    ]
    if not masks:
        return b.const(1.0)
    return masks[0] if len(masks) == 1 else b.op("Mul", *masks)


ACTIVATIONS: Final[dict[str, Rule]] = {
    "Abs": _by(_abs),
    "Atan": _by(_atan),
    "Celu": _by(_celu),
    "Clip": _by(_clip),
    "Cos": _by(_cos),
    "Elu": _by(_elu),
    "Erf": _by(_erf),
    "Exp": _by(_exp),
    "Gelu": _by(_gelu),
    "HardSigmoid": _by(_hard_sigmoid),
    "HardSwish": _by(_hard_swish),
    "LeakyRelu": _by(_leaky_relu),
    "Log": _by(_log),
    "Mish": _by(_mish),
    "Neg": _by(_neg),
    "PRelu": _prelu,
    "Reciprocal": _by(_reciprocal),
    "Relu": _by(_relu),
    "Selu": _by(_selu),
    "Sigmoid": _by(_sigmoid),
    "Sin": _by(_sin),
    "Softplus": _by(_softplus),
    "Softsign": _by(_softsign),
    "Sqrt": _by(_sqrt),
    "Swish": _by(_swish),
    "Tanh": _by(_tanh),
    "ThresholdedRelu": _by(_thresholded),
}
