"""A graph made ready to be gone back through: one list of nodes in float32, constants folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError
from litmus.formats.onnx_input import ImageInput

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["prepared", "topmost"]

_OLDEST: Final = 18
"""The opset from which all emitted operators have the form that they still have."""
_MOST_FOLDED: Final = 2**26
"""Values that constants may have together after folding."""


def prepared(model: ModelProto) -> tuple[ModelProto, bool]:
    """Return a copy without functions, of opset 18 at least, in float32; and whether it was not."""
    from onnx import inliner, version_converter

    if model.functions:
        model = inliner.inline_local_functions(model)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset < _OLDEST:
        model = version_converter.convert_version(model, _OLDEST)
    copy = type(model)()
    copy.CopyFrom(model)
    return copy, _to_float32(copy)


def _to_float32(model: ModelProto) -> bool:
    """Make all floats of other sizes float32; whether there were halves."""
    from onnx import TensorProto

    wide = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    graph, half = model.graph, False
    del graph.value_info[:]
    for tensor in graph.initializer:
        half |= tensor.data_type in wide[:2]
        _widen(tensor, wide)
    for node in graph.node:
        for a in node.attribute:
            if a.name in ("to", "dtype") and a.i in wide:
                half |= a.i in wide[:2]
                a.i = TensorProto.FLOAT
            if a.HasField("t"):
                _widen(a.t, wide)
    for value in [*graph.input, *graph.output]:
        kind = value.type.tensor_type
        if kind.elem_type in (*wide, TensorProto.UINT8):
            kind.elem_type = TensorProto.FLOAT
    return half


def _widen(tensor: TensorProto, wide: Sequence[int]) -> None:
    from onnx import numpy_helper

    if tensor.data_type in wide:
        value = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def topmost(
    model: ModelProto, image_input: ImageInput
) -> tuple[list[NodeProto], dict[str, NDArray[Any]], dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the nodes that depend on the image, all constants, and all shapes and types.

    The graph is run once, on two images (or a batch of its fixed size), and gives all its values.
    """
    from onnx import numpy_helper

    graph, source = model.graph, image_input.name
    nodes = _needed(model)
    fixed = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    reached = {source}
    for node in nodes:
        if reached.intersection(node.input):
            reached.update(node.output)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedModelError(f"its operator {node.op_type} has no gradient here")
    values = _run_all(model, nodes, image_input)
    folded = {name: v for name, v in values.items() if name not in reached}
    if sum(v.size for v in folded.values()) > _MOST_FOLDED:
        raise UnsupportedModelError("its constants are too many")
    kept = [node for node in nodes if reached.intersection(node.input)]
    everything = {**fixed, **values}
    return (
        kept,
        {**fixed, **folded},
        {name: v.shape for name, v in everything.items()},
        {name: v.dtype for name, v in everything.items()},
    )


def _run_all(
    model: ModelProto, nodes: Sequence[NodeProto], image_input: ImageInput
) -> dict[str, NDArray[Any]]:
    """Run a graph and return each value of it, the image's among them."""
    from onnx import ValueInfoProto

    from litmus.formats.onnx_file import create_session

    exposed = type(model)()
    exposed.CopyFrom(model)
    declared = {value.name for value in model.graph.output}
    names = [name for node in nodes for name in node.output if name]
    exposed.graph.output.extend(
        ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in declared
    )
    session = create_session(exposed.SerializeToString(), "gradient")
    c, h, w = image_input.image_shape
    shape = (c, h, w) if image_input.layout == "nchw" else (h, w, c)
    batch = image_input.batch or 2
    images = np.random.default_rng(0).random((batch, *shape)).astype(np.float32)
    outputs = [value.name for value in session.get_outputs()]
    found = session.run(outputs, {image_input.name: images})
    values = {n: np.asarray(v) for n, v in zip(outputs, found, strict=True)}
    return {**values, image_input.name: images}


def _needed(model: ModelProto) -> list[NodeProto]:
    """The nodes that lead to the output, in their order: an ONNX graph is sorted."""
    wanted, found = {model.graph.output[0].name}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]
