"""If nodes whose condition is the same for all images, with the branch put in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.errors import UnsupportedModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["captured", "subgraphs", "without_branches"]

_DEPTH: Final = 8
"""So many branches may lie inside each other."""


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Return the graphs in a node's attributes."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        found += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    return found


def captured(node: NodeProto) -> set[str]:
    """Return all names that a node's subgraphs mention: those from outside are among them."""
    found: set[str] = set()
    waiting = subgraphs(node)
    while waiting:
        graph = waiting.pop()
        found.update(value.name for value in graph.output)
        for inner in graph.node:
            found.update(inner.input)
            waiting += subgraphs(inner)
    return found


def without_branches(
    model: ModelProto,
    source: str,
    feeds: Sequence[Mapping[str, Any]],
    prefix: str,
    where: object,
) -> None:
    """Replace each If by the branch that is taken whatever the images show."""
    from litmus.formats.gradients.running import dependent, run

    for depth in range(_DEPTH):
        graph = model.graph
        conditions = [node.input[0] for node in graph.node if node.op_type == "If"]
        if not conditions:
            return
        seen = dependent(graph.node, {source}, {"Shape", "Size"})
        if seen.intersection(conditions):
            break
        runs = [run(model, conditions, feed, where) for feed in feeds]
        taken = {name: [bool(np.all(each[name])) for each in runs] for name in conditions}
        if any(len(set(each)) > 1 for each in taken.values()):
            break
        nodes: list[NodeProto] = []
        for place, node in enumerate(graph.node):
            if node.op_type == "If":
                chosen = taken[node.input[0]][0]
                nodes += _branch(model, node, chosen, f"{prefix}if{depth}_{place}_")
            else:
                nodes.append(node)
        kept = [_copy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    raise UnsupportedModelError("its If has no gradient", where=where)


def _copy(node: NodeProto) -> NodeProto:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied


def _branch(model: ModelProto, node: NodeProto, chosen: bool, prefix: str) -> list[NodeProto]:
    """The nodes of a branch, with names of its own, and its results by the node's names."""
    from onnx import helper

    wanted = "then_branch" if chosen else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == wanted)
    inner = [name for each in branch.node for name in each.output if name]
    inner += [tensor.name for tensor in branch.initializer]
    names = {name: f"{prefix}{place}" for place, name in enumerate(inner)}
    for tensor in branch.initializer:
        tensor.name = names[tensor.name]
        model.graph.initializer.append(tensor)
    for each in branch.node:
        each.output[:] = [names.get(name, name) for name in each.output]
        _rename(each, names)
    results = [
        helper.make_node("Identity", [names.get(value.name, value.name)], [name])
        for value, name in zip(branch.output, node.output, strict=True)
    ]
    return [*branch.node, *results]


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node and its subgraphs take."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        each.input[:] = [names.get(name, name) for name in each.input]
        for graph in subgraphs(each):
            own = {name for inner in graph.node for name in inner.output}
            for value in graph.output:
                if value.name not in own:
                    value.name = names.get(value.name, value.name)
            waiting += graph.node
