"""The last linear layer of an ONNX graph: found by walking back from the output.

The graph may be hostile: no walk is longer than the graph, constants are read through few
operators, and shapes are checked. Call it in a child process only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError
from litmus.formats.onnx_constants import Constants, attribute
from litmus.models import LastLayer

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["last_layer"]

# Between the layer and the output, these only rename, reshape or average the classes' values.
# Quantised values are stored otherwise and mean the same.
_PASSED: Final = frozenset(
    {"Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose",
     "AveragePool", "GlobalAveragePool", "ReduceMean", "QuantizeLinear", "DequantizeLinear"}
)  # fmt: skip
# These make probabilities of logits: whatever comes behind them is no affine map of logits.
_PROBABILITIES: Final = frozenset({"Softmax", "LogSoftmax", "Log"})
_STANDARD: Final = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """What happens to the layer's outputs: scale (k,) times them plus shift (k,)."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def behind(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> _Affine:
        """Return this map applied to ``scale * x + shift``."""
        return _Affine(scale=self.scale * scale, shift=self.scale * shift + self.shift)


def last_layer(graph: GraphProto, num_classes: int, where: object) -> LastLayer:
    """Return weights (k, f) and bias (k,) of the Gemm, MatMul or 1x1 Conv that gives the logits.

    What is added to, multiplied with or normalised behind it is folded in where it is constant.
    Raises UnsupportedModelError where something else comes first on the way back from the output,
    ModelError where a tensor is malformed.
    """
    walk = _Walk(graph, num_classes, where)
    name = graph.output[0].name
    affine = _Affine(scale=np.ones(num_classes), shift=np.zeros(num_classes))
    moved = False
    for _ in range(len(graph.node)):  # a hostile graph may go round in circles
        node = walk.producers.get(name)
        if node is None or not node.input:
            break
        kind = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
        if kind in _LAYERS:
            weights, bias = _LAYERS[kind](walk, node)
            return weights * affine.scale[:, None], bias * affine.scale + affine.shift
        if kind in _MAPS:
            name, scale, shift = _MAPS[kind](walk, node)
            affine, moved = affine.behind(scale, shift), True
        elif kind in _PASSED or (kind in _PROBABILITIES and not moved):
            name = node.input[0]
        else:
            raise walk.unsupported(kind)
    raise walk.unsupported("the graph's input or a constant")


class _Walk:
    """A graph by the names of its values, and how a part of it is read for k classes."""

    def __init__(self, graph: GraphProto, num_classes: int, where: object) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.num_classes, self._where = num_classes, where
        self._constants = Constants(graph, self.producers, where)

    def constant(self, node: NodeProto, place: int) -> NDArray[np.float64] | None:
        """Return an input of a node if it is there and constant."""
        if place >= len(node.input) or not node.input[place]:
            return None
        return self._constants.find(node.input[place])

    def per_class(self, node: NodeProto, place: int) -> NDArray[np.float64]:
        """Return a constant input as (k,); raises UnsupportedModelError where it is none."""
        found = self.constant(node, place)
        if found is None or found.size not in (1, self.num_classes):
            got = f"{node.op_type} with {'none' if found is None else found.shape}"
            raise self.unsupported(got)
        return np.broadcast_to(found.reshape(-1), (self.num_classes,))

    def bias(self, node: NodeProto) -> NDArray[np.float64]:
        """Return the third input as (k,), zeros where there is none."""
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(self.num_classes)
        return self.per_class(node, 2)

    def matrix(self, node: NodeProto, rank: int) -> NDArray[np.float64]:
        """Return the second input, a constant of this rank."""
        found = self.constant(node, 1)
        if found is None or found.ndim != rank:
            shape = "weights that are not constant" if found is None else found.shape
            raise self.unsupported(f"{node.op_type} with {shape}")
        return found

    def checked(self, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> LastLayer:
        """Return the layer; raises UnsupportedModelError unless it has one row a class."""
        if len(weights) != self.num_classes or weights.size == 0:
            got = f"weights {weights.shape} for {self.num_classes} classes"
            raise self.unsupported(got)
        return weights, bias

    def unsupported(self, got: object) -> UnsupportedModelError:
        """Return the error that names what was found in place of the layer."""
        return UnsupportedModelError(
            "the model's last layer can't be read",
            expected="Gemm, MatMul or 1x1 Conv with constant weights that gives the logits",
            got=got,
            where=self._where,
        )


def _gemm(walk: _Walk, node: NodeProto) -> LastLayer:
    if attribute(node, "transA", 0):
        raise walk.unsupported("Gemm with transA")
    matrix = walk.matrix(node, 2)
    weights = matrix if attribute(node, "transB", 0) else matrix.T
    bias = attribute(node, "beta", 1.0) * walk.bias(node)
    return walk.checked(attribute(node, "alpha", 1.0) * weights, bias)


def _matmul(walk: _Walk, node: NodeProto) -> LastLayer:
    return walk.checked(walk.matrix(node, 2).T, np.zeros(walk.num_classes))


def _conv(walk: _Walk, node: NodeProto) -> LastLayer:
    kernel = walk.matrix(node, 4)
    if kernel.shape[2:] != (1, 1) or attribute(node, "group", 1) != 1:
        raise walk.unsupported(f"Conv with {kernel.shape}")
    return walk.checked(kernel[:, :, 0, 0], walk.bias(node))


_LAYERS: Final[Mapping[str, Callable[[_Walk, NodeProto], LastLayer]]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
}

_Map = tuple[str, NDArray[np.float64], NDArray[np.float64]]
"""The input that is not constant, and scale and shift, (k,) each."""


def _sides(walk: _Walk, node: NodeProto) -> tuple[str, NDArray[np.float64]]:
    """Of the two inputs, in any order, the name of the one and the constant that is the other."""
    place = 0 if walk.constant(node, 1) is None else 1
    constant = walk.per_class(node, place)
    return node.input[1 - place], constant


def _add(walk: _Walk, node: NodeProto) -> _Map:
    name, constant = _sides(walk, node)
    return name, np.ones(walk.num_classes), constant


def _mul(walk: _Walk, node: NodeProto) -> _Map:
    name, constant = _sides(walk, node)
    return name, constant, np.zeros(walk.num_classes)


def _sub(walk: _Walk, node: NodeProto) -> _Map:
    return node.input[0], np.ones(walk.num_classes), -walk.per_class(node, 1)


def _div(walk: _Walk, node: NodeProto) -> _Map:
    with np.errstate(all="ignore"):  # infinite weights are refused by who reads them
        return node.input[0], 1 / walk.per_class(node, 1), np.zeros(walk.num_classes)


def _batch_norm(walk: _Walk, node: NodeProto) -> _Map:
    gain, offset, mean, variance = (walk.per_class(node, place) for place in range(1, 5))
    with np.errstate(all="ignore"):
        scale = gain / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return node.input[0], scale, offset - mean * scale


_MAPS: Final[Mapping[str, Callable[[_Walk, NodeProto], _Map]]] = {
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "BatchNormalization": _batch_norm,
}
