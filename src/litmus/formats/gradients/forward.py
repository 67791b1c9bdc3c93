"""The forward half: a graph in floats of 32 bits, with all folded that depends on no image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import LitmusError, UnsupportedModelError
from litmus.formats.gradients.branches import captured, without_branches
from litmus.formats.gradients.builder import Shape
from litmus.formats.gradients.floats import in_float32
from litmus.formats.gradients.folding import fold_batch_norms
from litmus.formats.gradients.running import dependent, run
from litmus.formats.onnx_input import ImageInput
from litmus.models import LOG_FLOOR, Outputs

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Forward", "prepare"]

_OPSET: Final = 18
"""What the backward nodes are written in; later versions mean the same by them."""
_COUNTS: Final = (2, 3)
"""Numbers of images: what differs between them follows the number of images."""


@dataclass(frozen=True)
class Forward:
    """A graph that is ready for its backward half.

    `shapes`, `types` and `values` are as in `Builder`; `prefix` begins no name of the graph.
    """

    model: ModelProto
    source: str
    result: str
    shapes: dict[str, Shape]
    types: dict[str, Any]
    values: dict[str, NDArray[Any]]
    prefix: str


def prepare(model: ModelProto, image_input: ImageInput, outputs: Outputs, where: object) -> Forward:
    """Return the graph of the logits; raises UnsupportedModelError where that can't be made."""
    prepared = _raised(_inlined(model, where), where)
    in_float32(prepared)
    prefix = _prefix(prepared)
    result = _to_logits(prepared, outputs, prefix)
    source, layout = image_input.name, image_input.layout
    channels, height, width = image_input.image_shape
    sizes = (channels, height, width) if layout == "nchw" else (height, width, channels)
    counts = (image_input.batch,) if image_input.batch else _COUNTS
    random = np.random.default_rng(0)
    feeds = [{source: random.random((n, *sizes)).astype(np.float32)} for n in counts]
    without_branches(prepared, source, feeds, prefix, where)
    _keep_needed(prepared, result)
    fold_batch_norms(prepared)
    return _probed(prepared, source, result, feeds, prefix, where)


def _probed(
    model: ModelProto,
    source: str,
    result: str,
    feeds: Sequence[dict[str, Any]],
    prefix: str,
    where: object,
) -> Forward:
    """Run the graph once for each feed, and fold what is the same whatever the images show."""
    from onnx import numpy_helper

    graph = model.graph
    names = [name for node in graph.node for name in node.output if name]
    runs = [run(model, names, feed, where) for feed in feeds]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = [{**constants, **feed, **each} for feed, each in zip(feeds, runs, strict=True)]
    arrays = {name: v for name, v in found[0].items() if isinstance(v, np.ndarray)}
    shapes = {name: _shape([each[name] for each in found]) for name in arrays}
    seen = dependent(graph.node, {source}, {"Shape", "Size"})
    values = {
        name: value
        for name, value in arrays.items()
        if name not in seen and all(_same(value, each[name]) for each in found[1:])
    }
    _fold(model, values)
    _keep_needed(model, result)
    types = {name: value.dtype for name, value in arrays.items()}
    return Forward(model, source, result, shapes, types, values, prefix)


def _shape(values: Sequence[NDArray[Any]]) -> Shape:
    shapes = {value.shape for value in values}
    if len({len(shape) for shape in shapes}) > 1:
        return (None,) * values[0].ndim
    sizes = [set(each) for each in zip(*shapes, strict=True)]
    return tuple(int(each.pop()) if len(each) == 1 else None for each in sizes)


def _same(one: NDArray[Any], other: Any) -> bool:
    if one is other:
        return True
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _fold(model: ModelProto, values: dict[str, NDArray[Any]]) -> None:
    """Put known values in place of the nodes that make them."""
    from onnx import numpy_helper

    graph = model.graph
    kept = []
    for node in graph.node:
        made = [name for name in node.output if name]
        if made and all(name in values for name in made):
            graph.initializer.extend(numpy_helper.from_array(values[n], n) for n in made)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _keep_needed(model: ModelProto, result: str) -> None:
    """Drop the nodes and constants that do not lead to the result: a graph is sorted."""
    graph = model.graph
    wanted, kept = {result}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input, captured(node))
            kept.append(node)
    nodes = kept[::-1]
    tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    constants = {tensor.name for tensor in tensors}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs[:1])


def _to_logits(model: ModelProto, outputs: Outputs, prefix: str) -> str:
    """Make logits the output, for probabilities their floored logarithms; return its name."""
    from onnx import helper, numpy_helper

    graph = model.graph
    name: str = graph.output[0].name
    if outputs == "probabilities":
        floor = np.asarray(np.exp(LOG_FLOOR), np.float32)
        graph.initializer.append(numpy_helper.from_array(floor, f"{prefix}floor"))
        chain = [("Relu", []), ("Add", [f"{prefix}floor"]), ("Log", [])]
        for kind, more in chain:
            made = f"{prefix}{kind}"
            graph.node.append(helper.make_node(kind, [name, *more], [made]))
            name = made
    del graph.output[:]
    graph.output.append(helper.make_empty_tensor_value_info(name))
    return name


def _prefix(model: ModelProto) -> str:
    """Return a beginning that no name in the graph has."""
    return _unused({name for node in model.graph.node for name in (*node.input, *node.output)})


def _unused(names: Collection[str]) -> str:
    longest = 0
    for name in names:
        rest = name.removeprefix("gradient")
        if rest != name:
            longest = max(longest, len(rest) - len(rest.lstrip("_")))
    return f"gradient{'_' * (longest + 1)}"


def _inlined(model: ModelProto, where: object) -> ModelProto:
    """A copy of the model without local functions."""
    copied = type(model)()
    copied.CopyFrom(model)
    if not model.functions:
        return copied
    from onnx import inliner

    try:
        return inliner.inline_local_functions(copied)
    except Exception as fault:  # its types differ between versions of onnx
        raise UnsupportedModelError(
            "its functions can't be put in place", got=str(fault)[:200], where=where
        ) from fault


def _raised(model: ModelProto, where: object) -> ModelProto:
    """The model in a version of the operators that the backward nodes can be written in."""
    own = {"", "ai.onnx"}
    version = max((o.version for o in model.opset_import if o.domain in own), default=1)
    if version < _OPSET:
        from onnx import version_converter

        try:
            model = version_converter.convert_version(model, _OPSET)
        except (MemoryError, LitmusError):
            raise
        except Exception as fault:  # of any type: it is C++ that reads the graph
            raise UnsupportedModelError(
                f"its operators of version {version} can't be brought to version {_OPSET}",
                got=" ".join(str(fault).split())[:200],
                where=where,
            ) from fault
    model.ir_version = max(model.ir_version, 8)
    return model
