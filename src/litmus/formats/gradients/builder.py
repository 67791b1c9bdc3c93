"""What the rules of operators write the backward half of a graph with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError
from litmus.formats.onnx_constants import attribute

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = ["Builder", "Cotangents", "NoGradientError", "Node", "Rule", "Shape"]

Shape = tuple[int | None, ...]
"""The sizes of a value, None where they follow the number of images."""
Cotangents = Sequence[str | None]

_MAX_MATRIX: Final = 2**24
"""Entries of a matrix that stands for an operator along one axis: 64 MiB."""


class NoGradientError(Exception):
    """What of an operator has no gradient here; says why in a few words."""


@dataclass(frozen=True)
class Node:
    """A node of the forward graph."""

    proto: NodeProto

    @property
    def kind(self) -> str:
        """Its operator."""
        return self.proto.op_type

    @property
    def inputs(self) -> list[str]:
        """The names of its inputs, empty where one is left out."""
        return list(self.proto.input)

    @property
    def outputs(self) -> list[str]:
        """The names of its outputs."""
        return list(self.proto.output)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute; text as a string."""
        value = attribute(self.proto, name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


Rule = Callable[[Node, "Builder", Cotangents], Cotangents]
"""Takes the cotangents of a node's outputs (None: zero), returns those of its inputs."""


@dataclass
class Builder:
    """Collects nodes and constants; knows the forward graph's shapes, constants and path.

    `shapes` and `types` (numpy's) are of every value, `values` of those that depend on no image;
    `path` holds the names that a gradient flows through. `prefix` begins no name of the file.
    """

    prefix: str
    shapes: dict[str, Shape]
    types: Mapping[str, Any]
    values: Mapping[str, NDArray[Any]]
    path: set[str]
    where: object
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    _count: int = 0
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def fresh(self) -> str:
        """Return a name that nothing has."""
        self._count += 1
        return f"{self.prefix}{self._count}"

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs, and return their names."""
        from onnx import helper

        names = [self.fresh() for _ in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """Return the name of a constant."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        small = array.size <= 16
        key = (array.dtype.str, array.shape, array.tobytes()) if small else ()
        if small and key in self._known:
            return self._known[key]
        name = self.fresh()
        self.tensors.append(numpy_helper.from_array(array, name))
        if small:
            self._known[key] = name
        return name

    def ints(self, *values: int) -> str:
        """Return the name of a constant of whole numbers, (n,)."""
        return self.const(values, np.int64)

    def needs(self, name: str) -> bool:
        """Whether a gradient flows through this value."""
        return name in self.path

    def shape(self, name: str) -> Shape:
        """Return the sizes of a forward value."""
        try:
            return self.shapes[name]
        except KeyError:
            raise NoGradientError("a shape is unknown") from None

    def size(self, name: str, axis: int) -> int:
        """Return one size, which must not follow the number of images."""
        found = self.shape(name)[axis]
        if found is None:
            raise NoGradientError("it works along the axis of the images")
        return found

    def value(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant; None where it depends on the images."""
        return self.values.get(name)

    def known(self, name: str, what: str) -> NDArray[Any]:
        """Return the value of what has to be a constant."""
        found = self.value(name)
        if found is None:
            raise NoGradientError(f"its {what} is no constant")
        return found

    def optional(self, node: Node, place: int, what: str) -> NDArray[Any] | None:
        """Return the value of an input that may be left out, and else has to be a constant."""
        names = node.inputs
        return self.known(names[place], what) if len(names) > place and names[place] else None

    def sizes(self, name: str) -> str:
        """Return the name of a value's shape as whole numbers, (rank,)."""
        return self._sizes(name, self.shape(name))

    def _sizes(self, name: str, shape: Shape) -> str:
        if None not in shape:
            return self.ints(*(size or 0 for size in shape))
        return self.op("Shape", name)

    def reshaped(self, value: str, like: str) -> str:
        """Return a value in the shape of a forward value of as many numbers."""
        shape = self.shape(like)
        if sum(size is None for size in shape) == 1 and 0 not in shape:
            return self.op("Reshape", value, self.ints(*(-1 if s is None else s for s in shape)))
        return self.op("Reshape", value, self._sizes(like, shape))

    def expanded(self, value: str, like: str) -> str:
        """Return a value repeated to the shape of a forward value."""
        return self.op("Expand", value, self.sizes(like))

    def zeros(self, like: str) -> str:
        """Return zeros of the shape of a forward value."""
        return self.expanded(self.const(0.0), like)

    def fit(self, value: str, like: str, node: Node) -> str:
        """Sum what was broadcast to the shape of the node's output back to an input's."""
        own, whole = self.shape(like), self.shape(node.outputs[0])
        if own == whole:
            return value
        ahead = len(whole) - len(own)
        axes = [*range(ahead)]
        axes += [ahead + i for i, s in enumerate(own) if s == 1 and whole[ahead + i] != 1]
        if axes:
            value = self._summed(value, whole, axes)
        return self.reshaped(value, like) if ahead else value

    def _summed(self, value: str, shape: Shape, axes: Sequence[int]) -> str:
        """Sum along axes that stay, of size 1; onnxruntime is slow at those in the middle."""
        first, behind = axes[0], shape[axes[-1] + 1 :]
        summed = shape[first : axes[-1] + 1]
        is_block = list(axes) == list(range(first, axes[-1] + 1))
        ahead = shape[:first]
        if not (is_block and ahead and behind) or None in (*summed, *behind):
            return self.op("ReduceSum", value, self.ints(*axes), keepdims=1)
        count, rest = (math.prod(size or 0 for size in sizes) for sizes in (summed, behind))
        if sum(size is None for size in ahead) > 1 or not count * rest:
            return self.op("ReduceSum", value, self.ints(*axes), keepdims=1)
        flat = self.op("Reshape", value, self.ints(-1, count, rest))
        total = self.op("MatMul", self.const(np.ones((1, count))), flat)
        sizes = [
            *(-1 if s is None else s for s in ahead),
            *[1] * len(axes),
            *(size or 0 for size in behind),
        ]
        return self.op("Reshape", total, self.ints(*sizes))

    def mask(self, kind: str, *inputs: str) -> str:
        """Return a comparison as 0 or 1."""
        return self.op("Cast", self.op(kind, *inputs), to=1)

    def along(self, value: str, rank: int, axis: int, matrix: NDArray[Any]) -> str:
        """Multiply a value (..., in, ...) along an axis with a matrix (in, out)."""
        if matrix.size > _MAX_MATRIX:
            raise NoGradientError("it is too large")
        if axis == rank - 1:
            return self.op("MatMul", value, self.const(matrix))
        if axis == rank - 2:
            return self.op("MatMul", self.const(matrix.T), value)
        order = [*(i for i in range(rank) if i != axis), axis]
        moved = self.op("Transpose", value, perm=order)
        product = self.op("MatMul", moved, self.const(matrix))
        return self.op("Transpose", product, perm=[int(i) for i in np.argsort(order)])

    def matrix(self, kind: str, size: int, *inputs: Any, **attributes: Any) -> NDArray[Any]:
        """Return (in, out): what a linear operator makes of each unit vector (in, 1, in)."""
        from onnx import helper, numpy_helper

        from litmus.formats.onnx_file import create_session

        if size * size > _MAX_MATRIX:
            raise NoGradientError("it is too large")
        shape = attributes.pop("shape", (size, 1, size))
        arrays = [np.eye(size, dtype=np.float32).reshape(shape), *inputs]
        names = ["" if array is None else f"v{i}" for i, array in enumerate(arrays)]
        graph = helper.make_graph(
            [helper.make_node(kind, names, ["y"], **attributes)],
            "matrix",
            [],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(a, n) for n, a in zip(names, arrays, strict=True) if n],
        )
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        found = create_session(model.SerializeToString(), self.where).run(None, {})[0]
        matrix: NDArray[Any] = found.reshape(size, -1)
        return matrix

    def refusal(self, node: Node, fault: Exception) -> UnsupportedModelError:
        """Say which operator it was."""
        return UnsupportedModelError(
            f"its {node.kind} has no gradient", got=str(fault)[:200] or None, where=self.where
        )
