"""Gradients of arithmetic on tensors that are broadcast to one shape."""

from __future__ import annotations

from collections.abc import Callable

from litmus.formats.gradients.builder import Builder, Cotangents, Node

__all__ = [
    "add",
    "divide",
    "extreme",
    "mean",
    "multiply",
    "power",
    "subtract",
    "where",
]


def _each(node: Node, b: Builder, make: Callable[[int, str], str]) -> Cotangents:
    """Cotangents of the inputs on the path, each summed to its own shape."""
    return [
        b.fit(make(place, name), name, node) if name and b.needs(name) else None
        for place, name in enumerate(node.inputs)
    ]


def add(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Add and Sum."""
    dy = str(cotangents[0])
    return _each(node, b, lambda place, name: dy)


def subtract(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Sub."""
    dy = str(cotangents[0])
    return _each(node, b, lambda place, name: b.op("Neg", dy) if place else dy)


def mean(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Mean."""
    dy = b.op("Mul", str(cotangents[0]), b.const(1 / len(node.inputs)))
    return _each(node, b, lambda place, name: dy)


def multiply(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Mul."""
    dy = str(cotangents[0])
    return _each(node, b, lambda place, name: b.op("Mul", dy, node.inputs[1 - place]))


def divide(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Div."""
    share = b.op("Div", str(cotangents[0]), node.inputs[1])

    def make(place: int, name: str) -> str:
        return b.op("Neg", b.op("Mul", share, node.outputs[0])) if place else share

    return _each(node, b, make)


def power(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Pow; the square, the usual one, without a power."""
    dy, (x, exponent) = str(cotangents[0]), node.inputs
    known = b.value(exponent)

    def make(place: int, name: str) -> str:
        if place:
            return b.op("Mul", dy, b.op("Mul", node.outputs[0], b.op("Log", x)))
        if known is not None and known.size == 1:
            p = float(known.reshape(-1)[0])
            slope = x if p == 2 else b.op("Pow", x, b.const(p - 1))
            return b.op("Mul", dy, b.op("Mul", slope, b.const(p)))
        real = b.op("Cast", exponent, to=1)
        slope = b.op("Pow", x, b.op("Sub", real, b.const(1.0)))
        return b.op("Mul", dy, b.op("Mul", slope, real))

    return _each(node, b, make)


def extreme(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Max and Min; equal ones share, as in PyTorch."""
    dy, y = str(cotangents[0]), node.outputs[0]
    masks = [b.mask("Equal", name, y) for name in node.inputs]
    if len(masks) > 1:
        dy = b.op("Div", dy, b.op("Sum", *masks))
    return _each(node, b, lambda place, name: b.op("Mul", dy, masks[place]))


def where(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Where."""
    dy = str(cotangents[0])
    chosen = b.op("Cast", node.inputs[0], to=1)

    def make(place: int, name: str) -> str:
        other = chosen if place == 1 else b.op("Sub", b.const(1.0), chosen)
        return b.op("Mul", dy, other)

    return _each(node, b, make)
