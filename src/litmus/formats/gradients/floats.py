"""A graph's halves and doubles as floats of 32 bits, its input included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from litmus.formats.gradients.branches import subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["in_float32"]

# Numbers of TensorProto.DataType.
_FLOAT: Final = 1
_OTHERS: Final = frozenset({10, 11, 16})
_TYPED: Final = frozenset({"to", "dtype", "output_dtype", "stash_type"})


def in_float32(model: ModelProto) -> None:
    """Make all floats and the input float32, in place."""
    waiting = [model.graph]
    for value in model.graph.input:
        if value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = _FLOAT
    while waiting:
        graph = waiting.pop()
        _change(graph.initializer)
        del graph.value_info[:]
        if graph is not model.graph:
            _untype(graph)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPED and attribute.i in _OTHERS:
                    attribute.i = _FLOAT
                if attribute.HasField("t"):
                    _change([attribute.t])
                _change(attribute.tensors)
            waiting += subgraphs(node)


def _change(tensors: Iterable[TensorProto]) -> None:
    from onnx import numpy_helper

    for tensor in tensors:
        if tensor.data_type in _OTHERS:
            with np.errstate(over="ignore"):  # a double that is none is infinite
                array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _untype(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = _FLOAT
