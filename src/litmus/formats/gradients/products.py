"""Gradients of matrix products."""

from __future__ import annotations

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError

__all__ = ["einsum", "gemm", "matmul"]


def matmul(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """MatMul of two tensors of rank 2 or more."""
    dy, (one, two) = str(cotangents[0]), node.inputs
    if min(len(b.shape(one)), len(b.shape(two))) < 2:
        raise NoGradientError("it multiplies a vector")
    first = second = None
    if b.needs(one):
        first = _summed(b, b.op("MatMul", dy, _turned(b, two)), one, node)
    if b.needs(two):
        second = _summed(b, b.op("MatMul", _turned(b, one), dy), two, node)
    return [first, second]


def _turned(b: Builder, name: str) -> str:
    value = b.value(name)
    if value is not None:
        return b.const(value.swapaxes(-1, -2))
    rank = len(b.shape(name))
    return b.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _summed(b: Builder, value: str, like: str, node: Node) -> str:
    """Sum over the stacks of matrices that were broadcast."""
    own, whole = b.shape(like)[:-2], b.shape(node.outputs[0])[:-2]
    ahead = len(whole) - len(own)
    axes = [*range(ahead)]
    axes += [ahead + i for i, s in enumerate(own) if s == 1 and whole[ahead + i] != 1]
    if axes:
        value = b.op("ReduceSum", value, b.ints(*axes), keepdims=1)
    return b.reshaped(value, like) if ahead > 0 else value


def gemm(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Gemm."""
    dy, (one, two) = str(cotangents[0]), node.inputs[:2]
    alpha = node.get("alpha", 1.0)
    turned = (node.get("transA", 0), node.get("transB", 0))
    found: list[str | None] = [None] * len(node.inputs)
    if b.needs(one):
        if turned[0]:
            found[0] = b.op("Gemm", two, dy, alpha=alpha, transA=turned[1], transB=1)
        else:
            found[0] = b.op("Gemm", dy, two, alpha=alpha, transB=1 - turned[1])
    if b.needs(two):
        if turned[1]:
            found[1] = b.op("Gemm", dy, one, alpha=alpha, transA=1, transB=turned[0])
        else:
            found[1] = b.op("Gemm", one, dy, alpha=alpha, transA=1 - turned[0])
    if len(node.inputs) > 2 and b.needs(node.inputs[2]):
        scaled = b.op("Mul", dy, b.const(node.get("beta", 1.0)))
        found[2] = b.fit(scaled, node.inputs[2], node)
    return found


def einsum(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Einsum, where an operand's letters all stand in the result or in another operand."""
    equation = node.get("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(t)) != len(t) for t in (*terms, result)):
        raise NoGradientError("its equation is not simple")
    found: list[str | None] = []
    for place, (term, name) in enumerate(zip(terms, node.inputs, strict=True)):
        if not b.needs(name):
            found.append(None)
            continue
        others = [i for i in range(len(terms)) if i != place]
        if not set(term) <= set(result).union(*(terms[i] for i in others)):
            raise NoGradientError("its equation is not simple")
        back = ",".join([result, *(terms[i] for i in others)]) + f"->{term}"
        operands = [str(cotangents[0]), *(node.inputs[i] for i in others)]
        found.append(b.op("Einsum", *operands, equation=back))
    return found
