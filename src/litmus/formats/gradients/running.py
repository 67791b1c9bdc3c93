"""Running a graph for values inside of it, and what depends on what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litmus.formats.gradients.branches import captured

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["dependent", "run"]


def run(
    model: ModelProto, names: Sequence[str], feed: Mapping[str, Any], where: object
) -> dict[str, Any]:
    """Return values by name; raises ModelError or UnsupportedModelError where it can't run."""
    from onnx import helper

    from litmus.formats.onnx_file import create_session, runtime_error, serialised

    asked = list(dict.fromkeys(names))
    before = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in asked)
    data = serialised(model, where)
    del model.graph.output[:]
    model.graph.output.extend(before)
    session = create_session(data, where)
    try:
        return dict(zip(asked, session.run(asked, dict(feed)), strict=True))
    except MemoryError:
        raise
    except Exception as fault:
        raise runtime_error(fault, where) from fault


def dependent(
    nodes: Iterable[NodeProto], sources: Collection[str], blocking: Collection[str]
) -> set[str]:
    """Return the names of all that depends on `sources`, but through `blocking` operators."""
    found = set(sources)
    for node in nodes:
        if node.op_type in blocking:
            continue
        if found.intersection(node.input) or found.intersection(captured(node)):
            found.update(name for name in node.output if name)
    return found
