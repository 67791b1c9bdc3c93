"""BatchNormalization folded into the convolution before it, so that its gradient costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from litmus.formats.onnx_constants import attribute

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["fold_batch_norms"]


def fold_batch_norms(model: ModelProto) -> None:
    """Fold in place each that follows a Conv, where all of both is constant."""
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    used: dict[str, int] = {value.name: 1 for value in graph.output}
    for node in graph.node:
        for name in node.input:
            used[name] = used.get(name, 0) + 1
    for place, norm in enumerate(graph.node):
        conv = producers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or used[norm.input[0]] > 1:
            continue
        names = [*conv.input[1:], *norm.input[1:]]
        if attribute(norm, "training_mode", 0) or any(name not in tensors for name in names):
            continue
        arrays = [numpy_helper.to_array(tensors[name]) for name in names]
        folded = _folded(arrays, attribute(norm, "epsilon", 1e-5))
        if folded is not None:
            _replace(model, conv, norm, folded, place)


def _folded(
    arrays: list[NDArray[Any]], epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The weights and the bias of both."""
    weights, *rest = arrays
    scale, shift, mean, variance = (each.astype(np.float64) for each in rest[-4:])
    bias = rest[0].astype(np.float64) if len(rest) > 4 else np.zeros(len(weights))
    if any(each.shape != (len(weights),) for each in (scale, shift, mean, variance, bias)):
        return None
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + epsilon)
        both = weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
        shifted = (bias - mean) * factor + shift
    if not (np.isfinite(both).all() and np.isfinite(shifted).all()):
        return None
    return both.astype(np.float32), shifted.astype(np.float32)


def _replace(
    model: ModelProto,
    conv: NodeProto,
    norm: NodeProto,
    folded: tuple[NDArray[np.float32], NDArray[np.float32]],
    place: int,
) -> None:
    from onnx import numpy_helper

    # Its own names: nothing else has the output of the convolution, which is gone, as a beginning.
    between = norm.input[0]
    names = [f"{between}/folded{place}/{part}" for part in ("weight", "bias")]
    taken = {tensor.name for tensor in model.graph.initializer}
    if taken.intersection(names):
        return
    for name, array in zip(names, folded, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    conv.input[1:] = names
    norm.op_type = "Identity"
    del norm.input[1:], norm.output[1:], norm.attribute[:]
