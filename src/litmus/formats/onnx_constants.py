"""Constant values of an ONNX graph as arrays; the graph may be hostile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

__all__ = ["Constants", "attribute"]

_DEPTH: Final = 4
"""So many operators may lie between a tensor and its use: cast, dequantised, transposed."""


class Constants:
    """The tensors of a graph by name, also behind Identity, Cast, Transpose, DequantizeLinear."""

    def __init__(
        self, graph: GraphProto, producers: Mapping[str, NodeProto], where: object
    ) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._producers, self._where = producers, where

    def find(self, name: str, depth: int = _DEPTH) -> NDArray[np.float64] | None:
        """Return the value of this name in float64, None where it is not constant.

        Raises ModelError where its tensor is malformed.
        """
        if name in self._tensors:
            return self._array(self._tensors[name])
        node = self._producers.get(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            value = attribute(node, "value", None)
            return None if value is None else self._array(value)
        if depth == 0 or not node.input:
            return None
        if node.op_type in ("Identity", "Cast"):
            return self.find(node.input[0], depth - 1)
        if node.op_type == "Transpose":
            return self._transposed(node, self.find(node.input[0], depth - 1))
        if node.op_type == "DequantizeLinear":
            return self._dequantised(node, [self.find(part, depth - 1) for part in node.input[:3]])
        return None

    def _array(self, tensor: TensorProto) -> NDArray[np.float64]:
        from onnx import numpy_helper

        try:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind == "c":
                raise ValueError("complex numbers")
            with np.errstate(invalid="ignore"):  # a NaN is one in float64, too
                return array.astype(np.float64)
        except MemoryError:
            raise
        except Exception as fault:  # its types differ between versions of onnx
            raise ModelError(
                "a tensor is malformed", got=str(fault)[:200], where=self._where
            ) from fault

    @staticmethod
    def _transposed(
        node: NodeProto, array: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        if array is None:
            return None
        order = list(attribute(node, "perm", range(array.ndim)[::-1]))
        return array.transpose(order) if sorted(order) == list(range(array.ndim)) else None

    @staticmethod
    def _dequantised(
        node: NodeProto, parts: list[NDArray[np.float64] | None]
    ) -> NDArray[np.float64] | None:
        """(x - zero point) * scale, with one scale or one for every place of an axis."""
        x, *rest = parts
        if x is None or not rest or any(part is None for part in rest):
            return None
        axis = attribute(node, "axis", 1)
        # A scale for every block of values is not for us.
        if attribute(node, "block_size", 0) or not -x.ndim <= axis < max(x.ndim, 1):
            return None
        shape = [1] * x.ndim
        if x.ndim:
            shape[axis] = -1
        fitting = {1, x.shape[axis]} if x.ndim else {1}
        values = [part for part in rest if part is not None and part.size in fitting]
        if len(values) < len(rest):
            return None
        scale, *zero = (value.reshape(shape) for value in values)
        return (x - (zero[0] if zero else 0.0)) * scale


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, `default` where it has none."""
    from onnx import helper

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
