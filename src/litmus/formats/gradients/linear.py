"""Gradients of convolutions, matrix products and the normalisation that is a fixed scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.errors import UnsupportedModelError
from litmus.formats.gradients.builder import Builder, Rule, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["LINEAR", "pads_of"]

Cotangents = Sequence[str | None]


def pads_of(
    a: dict[str, Any], sizes: Sequence[int], kernel: Sequence[int], out: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return strides, dilations, and the padding before and after each axis."""
    d = len(kernel)
    strides, dilations = list(a.get("strides", [1] * d)), list(a.get("dilations", [1] * d))
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = zip(sizes, kernel, out, strides, dilations, strict=True)
        total = [max((o - 1) * s + (k - 1) * t + 1 - n, 0) for n, k, o, s, t in wanted]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
        return strides, dilations, before, after
    pads = list(a.get("pads", [0] * 2 * d)) if auto == "NOTSET" else [0] * 2 * d
    return strides, dilations, pads[:d], pads[d:]


def _conv(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    x, w = node.input[:2]
    if w in b.active:
        raise UnsupportedModelError("its Conv has no gradient", expected="constant weights")
    a, kernel = attributes(node), b.shapes[w][2:]
    sizes, out = b.shapes[x][2:], b.shapes[node.output[0]][2:]
    strides, dilations, before, after = pads_of(a, sizes, kernel, out)
    group = a.get("group", 1)
    reach = [(k - 1) * t for k, t in zip(kernel, dilations, strict=True)]
    none = [None] * (len(node.input) - 1)
    fits = all(p <= r for p, r in zip([*before, *after], reach * 2, strict=True))
    if w in b.constants and set(strides) == {1} and fits:
        # A convolution is quicker than a transposed one, and here it is the same.
        value = b.constants[w]
        parts = value.reshape(group, value.shape[0] // group, *value.shape[1:])
        flipped = np.flip(parts.swapaxes(1, 2), axis=tuple(range(3, 3 + len(kernel))))
        weights = b.const(flipped.reshape(-1, *flipped.shape[2:]))
        back = [r - p for r, p in zip(reach * 2, [*before, *after], strict=True)]
        found = b.add("Conv", given[0], weights, group=group, dilations=dilations, pads=back)
        return [found, *none]
    covered = [
        (o - 1) * s + r + 1 - p - q
        for o, s, r, p, q in zip(out, strides, reach, before, after, strict=True)
    ]
    extra = [n - c for n, c in zip(sizes, covered, strict=True)]
    found = b.add(
        "ConvTranspose",
        given[0],
        w,
        group=group,
        strides=strides,
        dilations=dilations,
        pads=[*before, *after],
        output_padding=extra,
    )
    return [found, *none]


def _conv_transpose(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    x, w = node.input[:2]
    if w in b.active:
        raise UnsupportedModelError(
            "its ConvTranspose has no gradient", expected="constant weights"
        )
    a, kernel = attributes(node), b.shapes[w][2:]
    sizes, out = b.shapes[x][2:], b.shapes[node.output[0]][2:]
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in a:
        raise UnsupportedModelError("its ConvTranspose has no gradient", expected="explicit pads")
    strides, dilations, before, _ = pads_of(a, sizes, kernel, out)
    # Its output may have more on its far side than the convolution takes back.
    after = [
        (n - 1) * s + (k - 1) * t + 1 - o - p
        for n, s, k, t, o, p in zip(sizes, strides, kernel, dilations, out, before, strict=True)
    ]
    dy = given[0]
    if min(after) < 0:
        ends = [o + min(p, 0) for o, p in zip(out, after, strict=True)]
        axes = range(2, 2 + len(kernel))
        dy = b.add("Slice", dy, b.ints([0] * len(kernel)), b.ints(ends), b.ints(list(axes)))
    found = b.add(
        "Conv",
        dy,
        w,
        group=a.get("group", 1),
        strides=strides,
        dilations=dilations,
        pads=[*before, *(max(p, 0) for p in after)],
    )
    return [found, *[None] * (len(node.input) - 1)]


def _gemm(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    a = attributes(node)
    alpha, trans_a, trans_b = a.get("alpha", 1.0), a.get("transA", 0), a.get("transB", 0)
    left, right = node.input[:2]
    found: list[str | None] = [None] * len(node.input)
    if left in b.active:
        order = (right, given[0]) if trans_a else (given[0], right)
        flags = {"transA": trans_b, "transB": 1} if trans_a else {"transB": 1 - trans_b}
        found[0] = b.add("Gemm", *order, alpha=alpha, **flags)
    if right in b.active:
        order = (given[0], left) if trans_b else (left, given[0])
        flags = {"transA": 1, "transB": trans_a} if trans_b else {"transA": 1 - trans_a}
        found[1] = b.add("Gemm", *order, alpha=alpha, **flags)
    if b.has(node, 2) and node.input[2] in b.active:
        scaled = b.add("Mul", given[0], b.const(a.get("beta", 1.0)))
        found[2] = b.unbroadcast(scaled, b.shapes[node.output[0]], node.input[2])
    return found


def _matmul(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    left, right = node.input
    ranks = len(b.shapes[left]), len(b.shapes[right])
    if min(ranks) < 2:
        raise UnsupportedModelError("its MatMul has no gradient", expected="matrices", got=ranks)
    shape = b.shapes[node.output[0]]
    found: list[str | None] = [None, None]
    for i, (own, other) in enumerate(((left, right), (right, left))):
        if own not in b.active:
            continue
        rank = ranks[1 - i]
        turned = b.transposed(other, [*range(rank - 2), rank - 1, rank - 2])
        order = (given[0], turned) if i == 0 else (turned, given[0])
        whole = (*shape[:-2], *b.shapes[own][-2:])
        found[i] = b.unbroadcast(b.add("MatMul", *order), whole, own)
    return found


def _batch_norm(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    scale, var = b.constant(node, 1), b.constant(node, 4)
    factor = scale / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
    rank = len(b.shapes[node.input[0]])
    return [b.add("Mul", given[0], b.const(factor.reshape(-1, *[1] * (rank - 2)))), *[None] * 4]


LINEAR: Final[dict[str, Rule]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
}
