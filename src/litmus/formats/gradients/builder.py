"""What a rule of differentiation is given: a node, its values' shapes, and how to emit nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["Builder", "Rule", "attributes"]

_PREFIX: Final = "litmus gradient "


class Builder:
    """Emits the nodes of a gradient's graph.

    `shapes` are those of all values of the graph for one batch, `constants` the values that depend
    on no image, by name; `active` names those that the image reaches. Every name that is emitted
    is new.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        constants: Mapping[str, NDArray[Any]],
        active: set[str],
    ) -> None:
        self.shapes, self.constants, self.active = shapes, constants, active
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, NDArray[Any]] = {}
        self._count = 0
        self._shape_names: dict[str, str] = {}

    def fresh(self) -> str:
        """Return a name that stands nowhere else."""
        self._count += 1
        return f"{_PREFIX}{self._count}"

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Emit a node with one output, and return that."""
        from onnx import helper

        output = self.fresh()
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attrs))
        return output

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """Return the name of a constant."""
        name = self.fresh()
        self.initializers[name] = np.asarray(value, dtype=dtype)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """Return the name of a constant of 64-bit integers, (n,)."""
        return self.const(list(values), np.int64)

    def shape_of(self, name: str) -> str:
        """Return the name of a value's shape, taken when the graph runs."""
        if name not in self._shape_names:
            self._shape_names[name] = self.add("Shape", name)
        return self._shape_names[name]

    def reshaped_as(self, value: str, like: str) -> str:
        """Return a value in the shape of another."""
        return self.add("Reshape", value, self.shape_of(like))

    def expanded_as(self, value: str, like: str) -> str:
        """Return a value broadcast to the shape of another."""
        return self.add("Expand", value, self.shape_of(like))

    def transposed(self, name: str, axes: Sequence[int]) -> str:
        """Return a value with other axes; at once, where it is a constant."""
        if name in self.constants:
            return self.const(self.constants[name].transpose(axes), self.constants[name].dtype)
        return self.add("Transpose", name, perm=list(axes))

    def summed(self, value: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """Return a value summed over axes."""
        return self.add("ReduceSum", value, self.ints(axes), keepdims=int(keep))

    def unbroadcast(self, value: str, shape: tuple[int, ...], like: str) -> str:
        """Return a cotangent of this shape summed to that of an input which was broadcast."""
        own = self.shapes[like]
        lead = len(shape) - len(own)
        axes = [lead + i for i, size in enumerate(own) if size == 1 and shape[lead + i] != 1]
        if lead:
            value = self.summed(value, range(lead), keep=False)
            axes = [axis - lead for axis in axes]
        return self.summed(value, axes) if axes else value

    def constant(self, node: NodeProto, index: int) -> NDArray[Any]:
        """Return an input that must not depend on the image; raises UnsupportedModelError."""
        name = node.input[index]
        if name not in self.constants:
            raise UnsupportedModelError(
                f"its {node.op_type} has no gradient", expected=f"a constant as input {index}"
            )
        return self.constants[name]

    def has(self, node: NodeProto, index: int) -> bool:
        """Whether an optional input is there."""
        return len(node.input) > index and bool(node.input[index])


Rule = Callable[[Builder, "NodeProto", Sequence[str | None]], Sequence[str | None]]
"""(builder, node, cotangents of its outputs) -> cotangents of its inputs, None where there is none.

The first output has a cotangent, others may have None. Only inputs in `active` need one.
"""


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name, texts as str."""
    from onnx import helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {n: v.decode(errors="replace") if isinstance(v, bytes) else v for n, v in found.items()}
