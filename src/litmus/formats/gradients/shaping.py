"""Gradients of what moves values about: shapes, pieces, padding, enlarging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.errors import UnsupportedModelError
from litmus.formats.gradients.builder import Builder, Rule, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["SHAPING"]

Cotangents = Sequence[str | None]


def _reshape(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    return [b.reshaped_as(given[0], node.input[0]), *[None] * (len(node.input) - 1)]


def _transpose(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    rank = len(b.shapes[node.input[0]])
    perm = attributes(node).get("perm", list(range(rank))[::-1])
    return [b.add("Transpose", given[0], perm=np.argsort(perm).tolist())]


def _expand(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    return [b.unbroadcast(given[0], b.shapes[node.output[0]], node.input[0]), None]


def _concat(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    axis = attributes(node)["axis"] % len(b.shapes[node.output[0]])
    found: list[str | None] = []
    start = 0
    for name in node.input:
        end = start + b.shapes[name][axis]
        piece = None
        if name in b.active:
            piece = b.add("Slice", given[0], b.ints([start]), b.ints([end]), b.ints([axis]))
        found.append(piece)
        start = end
    return found


def _split(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    axis = attributes(node).get("axis", 0)
    parts = [
        b.add("Mul", name, b.const(0)) if dy is None else dy
        for name, dy in zip(node.output, given, strict=True)
    ]
    return [b.add("Concat", *parts, axis=axis), *[None] * (len(node.input) - 1)]


def _slice(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Zeros stand around a piece; where values were skipped, each goes where it came from."""
    assert given[0] is not None
    sizes = b.shapes[node.input[0]]
    starts, ends = (b.constant(node, i).tolist() for i in (1, 2))
    axes = b.constant(node, 3).tolist() if b.has(node, 3) else list(range(len(starts)))
    steps = b.constant(node, 4).tolist() if b.has(node, 4) else [1] * len(starts)
    none: list[str | None] = [None] * (len(node.input) - 1)
    before, after, dy = [0] * len(sizes), [0] * len(sizes), given[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = sizes[axis]
        if step == 1:
            low, high, _ = slice(start, end).indices(size)
            before[axis], after[axis] = low, size - max(high, low)
            continue
        last = None if step < 0 and end < -size else end
        taken = np.arange(size)[slice(start, last, step)]
        dy = _scattered(b, dy, node.input[0], taken, axis % len(sizes))
    if any(before) or any(after):
        dy = b.add("Pad", dy, b.ints([*before, *after]))
    return [dy, *none]


def _scattered(b: Builder, dy: str, like: str, taken: Any, axis: int) -> str:
    """Add pieces (..., n, ...) to zeros at the places (n,) of an axis, by a matrix product."""
    rank, size = len(b.shapes[like]), b.shapes[like][axis]
    matrix = np.zeros((len(taken), size), np.float32)
    matrix[np.arange(len(taken)), taken] = 1
    perm = [i for i in range(rank) if i != axis] + [axis]
    moved = b.add("MatMul", b.add("Transpose", dy, perm=perm), b.const(matrix))
    return b.add("Transpose", moved, perm=np.argsort(perm).tolist())


def _gather(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    axis = attributes(node).get("axis", 0) % len(b.shapes[node.input[0]])
    index = b.constant(node, 1)
    dy = given[0]
    if index.ndim == 0:
        dy = b.add("Unsqueeze", dy, b.ints([axis]))
    elif index.ndim > 1:
        raise UnsupportedModelError("its Gather has no gradient", expected="a list of indices")
    taken = index.reshape(-1) % b.shapes[node.input[0]][axis]
    return [_scattered(b, dy, node.input[0], taken, axis), None]


def _pad(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    mode = attributes(node).get("mode", "constant")
    sizes, pads = b.shapes[node.input[0]], b.constant(node, 1).tolist()
    rank, none = len(sizes), [None] * (len(node.input) - 1)
    axes = b.constant(node, 3).tolist() if b.has(node, 3) else list(range(rank))
    before, after = pads[: len(axes)], pads[len(axes) :]
    if min(pads) < 0:
        raise UnsupportedModelError("its Pad has no gradient", expected="pads of at least 0")
    dy = given[0]
    for axis, low, high in zip(axes, before, after, strict=True):
        if not low and not high:
            continue
        if mode == "constant":
            ends = b.ints([low + sizes[axis]])
            dy = b.add("Slice", dy, b.ints([low]), ends, b.ints([axis]))
            continue
        modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
        index = np.pad(np.arange(sizes[axis]), (low, high), mode=modes[mode])  # type: ignore[call-overload]
        dy = _scattered(b, dy, node.input[0], index, axis % rank)
    return [dy, *none]


def _tile(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    dy, sizes = given[0], b.shapes[node.input[0]]
    for axis, repeats in enumerate(b.constant(node, 1).tolist()):
        if repeats != 1:
            taken = np.tile(np.arange(sizes[axis]), repeats)
            dy = _scattered(b, dy, node.input[0], taken, axis)
    return [dy, None]


def _depth_to_space(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    a, (_, c, h, w) = attributes(node), b.shapes[node.input[0]]
    s = a["blocksize"]
    whole = b.add("Reshape", given[0], b.ints([-1, c // s**2, h, s, w, s]))
    perm = [0, 3, 5, 1, 2, 4] if a.get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return [b.reshaped_as(b.add("Transpose", whole, perm=perm), node.input[0])]


def _space_to_depth(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    assert given[0] is not None
    size = attributes(node)["blocksize"]
    return [b.add("DepthToSpace", given[0], blocksize=size)]


def _resize(b: Builder, node: NodeProto, given: Cotangents) -> Cotangents:
    """Linear in each axis: the matrix is what the operator itself makes of unit vectors."""
    assert given[0] is not None
    from onnx import helper

    a = attributes(node)
    if a.get("mode", "nearest") not in ("nearest", "linear"):
        raise UnsupportedModelError("its Resize has no gradient", expected="nearest or linear")
    sizes, out = b.shapes[node.input[0]], b.shapes[node.output[0]]
    dy, rank = given[0], len(sizes)
    kept = {n: v for n, v in a.items() if n not in ("axes", "keep_aspect_ratio_policy")}
    if kept.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise UnsupportedModelError("its Resize has no gradient", got="tf_crop_and_resize")
    for axis in range(rank):
        if sizes[axis] == out[axis]:
            continue
        matrix = _resize_matrix(sizes[axis], out[axis], kept, helper)
        perm = [i for i in range(rank) if i != axis] + [axis]
        moved = b.add("MatMul", b.add("Transpose", dy, perm=perm), b.const(matrix))
        dy = b.add("Transpose", moved, perm=np.argsort(perm).tolist())
    return [dy, *[None] * (len(node.input) - 1)]


def _resize_matrix(size: int, out: int, a: dict[str, Any], helper: Any) -> Any:
    """Return (out, size): how much each new value takes of each old one."""
    from onnx import TensorProto

    from litmus.formats.onnx_file import create_session

    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], **a)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "resize",
        [value("x", TensorProto.FLOAT, [1, 1, size, size])],
        [value("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("s", TensorProto.INT64, [4], [1, 1, size, out])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = create_session(model.SerializeToString(), "resize")
    unit = np.eye(size, dtype=np.float32)[None, None]
    return session.run(None, {"x": unit})[0][0, 0].T


SHAPING: Final[dict[str, Rule]] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
}
