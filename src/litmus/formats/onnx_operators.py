"""A node of an ONNX graph as a PyTorch module: by one of our functions, or by onnx2torch."""

from __future__ import annotations

import inspect
import sys
import types
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from litmus.errors import MissingExtraError
from litmus.formats.onnx_functions import FUNCTIONS, Attributes, Function

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["Operator", "load_onnx2torch", "operator_of"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What a node does: `module` takes the values of `inputs` and returns those of `outputs`."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def operator_of(node: NodeProto, opset: int) -> Operator:
    """Return a node's operator; raises NotImplementedError where there is none for it.

    What it raises otherwise, for malformed attributes say, is of any type.
    """
    if node.op_type in FUNCTIONS:
        function = FUNCTIONS[node.op_type](_attributes(node))
        return Operator(
            module=_Function(function), inputs=tuple(node.input), outputs=tuple(node.output)
        )
    return _theirs(node, opset)


class _Function(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Any) -> Any:
        """Inputs that were left out are None."""
        return self.function(*values)


class _WithoutGaps(nn.Module):
    """A module of onnx2torch's, some of whose inputs were left out: those keep their defaults."""

    def __init__(self, module: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        names = list(inspect.signature(module.forward).parameters)
        self.names = [name for name, value in zip(names, inputs, strict=False) if value]

    def forward(self, *values: Any) -> Any:
        given = (value for value in values if value is not None)
        return self.module(**dict(zip(self.names, given, strict=True)))


def _theirs(node: NodeProto, opset: int) -> Operator:
    """A node by onnx2torch. It gets no graph: all constants come as inputs."""
    from onnx import GraphProto

    registry, graphs, nodes = load_onnx2torch()
    convert = None
    for version in _equal_versions(node.op_type, opset):
        try:
            convert = registry.get_converter(operation_type=node.op_type, version=version)
            break
        except NotImplementedError:
            continue
    if convert is None:
        raise NotImplementedError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, mapping = convert(
            nodes.OnnxNode(node, unique_name="node"), graphs.OnnxGraph(GraphProto())
        )
    if "" in mapping.inputs:
        module = _WithoutGaps(module, mapping.inputs)
    return Operator(module=module, inputs=mapping.inputs, outputs=mapping.outputs)


@cache
def load_onnx2torch() -> tuple[Any, Any, Any]:
    """Import onnx2torch, which wants torchvision for two operators that no classifier has.

    Raises MissingExtraError where it is not installed.
    """
    if find_spec("onnx2torch") is None:
        raise MissingExtraError(
            "the gradients of an ONNX file need onnx2torch",
            expected="pip install 'litmus-patterns[thorough]'",
        )
    stubs = {} if find_spec("torchvision") else _torchvision_stubs()
    sys.modules.update(stubs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnx2torch.node_converters as registry
            from onnx2torch import onnx_graph, onnx_node
    finally:
        for name in stubs:
            del sys.modules[name]
    return registry, onnx_graph, onnx_node


def _torchvision_stubs() -> dict[str, types.ModuleType]:
    package, operators = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    vars(operators)["roi_align"] = None
    return {"torchvision": package, "torchvision.ops": operators}


def _equal_versions(kind: str, opset: int) -> list[int]:
    """Return the versions of an operator that mean the same as an opset's, that one first.

    What has the same attributes, defaults and inputs differs in the types that it allows.
    """
    history = _history().get(kind, {})
    version = max((since for since in history if since <= opset), default=0)
    if not version:
        return []
    alike = [since for since in history if history[since] == history[version]]
    return sorted(alike, key=lambda since: abs(since - version))


@cache
def _history() -> dict[str, dict[int, object]]:
    """Every standard operator's versions, and what is compared of each."""
    from onnx import defs

    history: dict[str, dict[int, object]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            attributes = {
                name: (a.type, a.required, a.default_value.SerializeToString())
                for name, a in schema.attributes.items()
            }
            places = [[place.option for place in each] for each in (schema.inputs, schema.outputs)]
            history.setdefault(schema.name, {})[schema.since_version] = (attributes, places)
    return history


def _attributes(node: NodeProto) -> Attributes:
    from onnx import helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    texts = {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}
    return {"num_outputs": len(node.output), **texts}
