"""The graph of an ONNX file before it is run: what is refused, what is read, what is cut off.

Everything here looks at a file that may be hostile; call it in a child process only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from litmus.errors import ModelError, UnsupportedModelError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

__all__ = [
    "GraphInput",
    "check_operators",
    "graphs_of",
    "image_input",
    "keep_class_output",
    "parse",
    "read_before_softmax",
]

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# Numbers of TensorProto.DataType, which the format fixes for ever.
FLOAT, UINT8, FLOAT16, DOUBLE = 1, 2, 10, 11
INPUT_TYPES: Final = {FLOAT: "float32", FLOAT16: "float16", DOUBLE: "float64", UINT8: "uint8"}
OUTPUT_TYPES: Final = frozenset({FLOAT, FLOAT16, DOUBLE})

_SAME_SHAPE: Final = frozenset({"Identity", "Cast"})
_RESHAPING: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, kw_only=True)
class GraphInput:
    """The image input of a graph: name, numpy's name of its type, sizes (None where open)."""

    name: str
    dtype: str
    sizes: tuple[int | None, ...]


def parse(data: bytes, where: object) -> ModelProto:
    """Return the parsed model; raises ModelError where the bytes are no whole ONNX file."""
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except MemoryError:
        raise
    except Exception as fault:  # protobuf's DecodeError; its types are not for mypy
        raise ModelError("not an ONNX file, or a damaged one", where=where) from fault
    if not model.graph.node:
        raise ModelError("an ONNX file without a graph, or one that was cut short", where=where)
    model.ClearField("training_info")
    return model


def check_operators(model: ModelProto, where: object) -> None:
    """Raise UnsupportedModelError where a node is neither standard nor a local function."""
    local = {(function.domain, function.name) for function in model.functions}
    for node in (node for _, nodes in graphs_of(model) for node in nodes):
        if node.domain in STANDARD_DOMAINS or (node.domain, node.op_type) in local:
            continue
        raise UnsupportedModelError(
            "the model has custom operators",
            expected="the standard domains ai.onnx and ai.onnx.ml",
            got=f"{node.op_type} of {node.domain}",
            where=where,
        )


def image_input(model: ModelProto, where: object) -> GraphInput:
    """Return the one image input, rank 4; raises UnsupportedModelError on anything else."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        got = ", ".join([str(len(inputs)), *(value.name for value in inputs[:8])])
        raise UnsupportedModelError(
            "not an image classifier", expected="one input", got=got, where=where
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in INPUT_TYPES:
        raise UnsupportedModelError(
            "the input's type can't hold an image",
            expected=", ".join(INPUT_TYPES.values()),
            got=_describe(inputs[0]),
            where=where,
        )
    sizes = _sizes(inputs[0])
    if sizes is None or len(sizes) != 4:
        raise UnsupportedModelError(
            "not an image classifier",
            expected="an input of rank 4",
            got=_describe(inputs[0]),
            where=where,
        )
    return GraphInput(name=inputs[0].name, dtype=INPUT_TYPES[tensor.elem_type], sizes=sizes)


def keep_class_output(model: ModelProto, num_classes: int | None, where: object) -> str | None:
    """Make the classes' output (n, k) the only one; return a note where there were several.

    Of several the first with `num_classes` classes is taken, or else the first. Raises
    UnsupportedModelError where there is none.
    """
    outputs = list(model.graph.output)
    fitting = [value for value in outputs if _may_be_classes(value)]
    if not fitting:
        raise UnsupportedModelError(
            "not a classifier",
            expected="an output of floats, (n, classes)",
            got="; ".join(_describe(value) for value in outputs[:8]) or "no output",
            where=where,
        )
    exact = [v for v in fitting if (s := _sizes(v)) and s[1] is not None and s[1] == num_classes]
    chosen = (exact or fitting)[0]
    if len(outputs) == 1:
        return None
    name = chosen.name
    kept = type(chosen)()
    kept.CopyFrom(chosen)
    del model.graph.output[:]
    model.graph.output.append(kept)
    return f"of {len(outputs)} outputs, {name!r} was read"


def read_before_softmax(model: ModelProto) -> str | None:
    """Turn a last Softmax or LogSoftmax into an identity; return a note where there was one.

    What may lie between it and the output keeps its place. Nothing is changed where the softmax
    is not over the classes.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    name, reshaped, log = graph.output[0].name, False, None
    for _ in range(len(graph.node)):  # a hostile graph may go round in circles
        node = producers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or not node.input:
            return None
        kind = node.op_type
        if kind == "Softmax" or (kind == "LogSoftmax" and log is None):
            if not _over_classes(model, node, reshaped):
                return None
            for removed in (node, log):
                if removed is not None:
                    removed.op_type = "Identity"
                    del removed.attribute[:]
            return f"the graph ends in {kind}: read before it"
        if kind == "Log" and log is None:
            log = node
        elif kind in _RESHAPING:
            reshaped = True
        elif kind not in _SAME_SHAPE:
            return None
        name = node.input[0]
    return None


def _over_classes(model: ModelProto, node: NodeProto, reshaped: bool) -> bool:
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if opset >= 13 else 1)
    if not reshaped:
        return axis in (1, -1)
    # Before opset 13 the axis splits the tensor in two: all that follows is one softmax.
    if opset < 13:
        return axis == 1
    sizes = _inferred_sizes(model, node.output[0])
    if sizes is None or not -len(sizes) <= axis < len(sizes):
        return False
    axis %= len(sizes)
    return axis > 0 and all(size == 1 for i, size in enumerate(sizes) if i not in (0, axis))


def _inferred_sizes(model: ModelProto, name: str) -> tuple[int | None, ...] | None:
    from onnx import shape_inference

    try:
        graph = shape_inference.infer_shapes(model).graph
    except Exception:
        # Which types it raises differs between versions; the runtime will say what is wrong.
        return None
    return next((_sizes(value) for value in graph.value_info if value.name == name), None)


def graphs_of(model: ModelProto) -> Iterator[tuple[GraphProto | None, Sequence[NodeProto]]]:
    """Every graph (None for the body of a function) with its nodes, subgraphs included."""
    waiting: list[tuple[GraphProto | None, Sequence[NodeProto]]] = [(model.graph, model.graph.node)]
    waiting += [(None, function.node) for function in model.functions]
    while waiting:
        graph, nodes = waiting.pop()
        yield graph, nodes
        for node in nodes:
            for attribute in node.attribute:
                waiting += [(sub, sub.node) for sub in _subgraphs(attribute)]


def _subgraphs(attribute: AttributeProto) -> list[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _sizes(value: Any) -> tuple[int | None, ...] | None:
    """The sizes of a tensor, None where open; None where not even the rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _may_be_classes(value: Any) -> bool:
    sizes = _sizes(value)
    is_float = value.type.tensor_type.elem_type in OUTPUT_TYPES
    return is_float and (sizes is None or len(sizes) == 2)


def _describe(value: Any) -> str:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    known = kind in TensorProto.DataType.values()
    sizes = _sizes(value)
    shape = "of unknown rank" if sizes is None else f"({', '.join(str(s or '?') for s in sizes)})"
    return f"{value.name} {TensorProto.DataType.Name(kind) if known else kind} {shape}"
