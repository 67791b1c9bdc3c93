"""The backward half of a graph, appended to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.errors import LitmusError, UnsupportedModelError
from litmus.formats.gradients import FLAT, RULES
from litmus.formats.gradients.branches import captured
from litmus.formats.gradients.builder import Builder, Node
from litmus.formats.gradients.forward import Forward

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["BIAS", "GRADIENT", "LOGITS", "ONE_HOT", "SCALE", "differentiated"]

# Further inputs and the outputs, behind the prefix that no name of the file has.
ONE_HOT: Final = "one_hot"
SCALE: Final = "scale"
BIAS: Final = "bias"
LOGITS: Final = "logits"
GRADIENT: Final = "gradient"


def differentiated(forward: Forward, where: object) -> ModelProto:
    """Return the graph of logits and their objective's gradient to the source.

    The gradient to the logits is ``softmax(scale * logits + bias) - one_hot``, where these three
    are inputs, () and (n, k) twice. Raises UnsupportedModelError naming an operator without a
    gradient, and where no gradient reaches the source.
    """
    b = Builder(
        prefix=forward.prefix,
        shapes=forward.shapes,
        types=forward.types,
        values=forward.values,
        path=_path(forward),
        where=where,
    )
    names = {part: forward.prefix + part for part in (ONE_HOT, SCALE, BIAS, LOGITS, GRADIENT)}
    if forward.result not in b.path:
        raise UnsupportedModelError("no gradient of its outputs reaches the image", where=where)
    scaled = b.op("Add", b.op("Mul", forward.result, names[SCALE]), names[BIAS])
    start = b.op("Sub", b.op("Softmax", scaled, axis=1), names[ONE_HOT])
    waiting: dict[str, list[str]] = {forward.result: [start]}
    for proto in reversed(forward.model.graph.node):
        _through(proto, b, waiting)
    gradient = _total(b, waiting, forward.source)
    if gradient is None:
        raise UnsupportedModelError("no gradient of its outputs reaches the image", where=where)
    return _whole(forward, b, names, gradient)


def _path(forward: Forward) -> set[str]:
    """What a gradient flows through: all between source and result but for what is flat."""
    found = {forward.source}
    for node in forward.model.graph.node:
        if node.op_type in FLAT or not (found.intersection(node.input) or found & captured(node)):
            continue
        if node.op_type in ("Cast", "CastLike") and _loses(forward, node):
            continue
        found.update(name for name in node.output if name)
    return found


def _loses(forward: Forward, node: NodeProto) -> bool:
    """Whether a cast makes whole numbers of floats."""
    kinds = [np.dtype(forward.types[name]).kind for name in (node.input[0], node.output[0])]
    return bool(kinds[0] == "f" and kinds[1] != "f")


def _through(proto: NodeProto, b: Builder, waiting: dict[str, list[str]]) -> None:
    """Take one node's cotangents from its outputs to its inputs."""
    node = Node(proto)
    given = [_total(b, waiting, name) for name in node.outputs]
    if all(each is None for each in given):
        return
    if not any(b.needs(name) for name in (*node.inputs, *captured(proto))):
        return
    rule = RULES.get(node.kind) if proto.domain in ("", "ai.onnx") else None
    if rule is None:
        raise b.refusal(node, Exception())
    if given[0] is None and node.kind not in ("Split", "LayerNormalization"):
        raise b.refusal(node, Exception("another output than its first is used"))
    try:
        found: Sequence[Any] = rule(node, b, given)
    except (MemoryError, LitmusError):
        raise
    except Exception as fault:  # a hostile attribute may be of any type
        raise b.refusal(node, fault) from fault
    for name, cotangent in zip(node.inputs, found, strict=False):
        if cotangent is not None and b.needs(name):
            waiting.setdefault(name, []).append(cotangent)


def _total(b: Builder, waiting: dict[str, list[str]], name: str) -> str | None:
    """The sum of what has come to a value."""
    parts = waiting.pop(name, [])
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else b.op("Sum", *parts)


def _whole(forward: Forward, b: Builder, names: dict[str, str], gradient: str) -> ModelProto:
    from onnx import helper

    model = type(forward.model)()
    model.CopyFrom(forward.model)
    graph = model.graph
    nodes = [
        *b.nodes,
        helper.make_node("Identity", [forward.result], [names[LOGITS]]),
        helper.make_node("Identity", [gradient], [names[GRADIENT]]),
    ]
    graph.node.extend(nodes)
    graph.initializer.extend(b.tensors)
    for part, shape in ((ONE_HOT, ["n", None]), (SCALE, []), (BIAS, ["n", None])):
        graph.input.append(helper.make_tensor_value_info(names[part], 1, shape))
    del graph.output[:]
    for part in (LOGITS, GRADIENT):
        graph.output.append(helper.make_empty_tensor_value_info(names[part]))
    return model
