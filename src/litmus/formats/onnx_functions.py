"""ONNX operators as functions of tensors: what onnx2torch lacks, or does otherwise.

Each is made of a node's attributes (and `num_outputs`), in any version of the operator from opset 7
on, and takes the node's inputs, None where one is left out. Operators mean what
https://onnx.ai/onnx/operators says. These take any constant, also one that is computed, and pad as
Keras's exports ask for (`auto_pad`). What they don't do, they raise NotImplementedError for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FUNCTIONS", "Attributes", "Function"]

Function = Callable[..., Any]
Attributes = Mapping[str, Any]


def _identity(attributes: Attributes) -> Function:
    return lambda x, *rest: x


def _cast(attributes: Attributes) -> Function:
    """All floating types are the one that the network runs in."""
    from onnx import TensorProto

    whole = {
        TensorProto.UINT8: torch.uint8,
        TensorProto.INT8: torch.int8,
        TensorProto.INT16: torch.int16,
        TensorProto.INT32: torch.int32,
        TensorProto.INT64: torch.int64,
        TensorProto.BOOL: torch.bool,
    }
    floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    kind = attributes["to"]
    if kind not in whole and kind not in floating:
        raise NotImplementedError
    return lambda x: x.to(whole.get(kind, torch.float32))


def _reshape(attributes: Attributes) -> Function:
    keeps_zeros = bool(attributes.get("allowzero", 0))

    def reshape(x: Tensor, shape: Tensor) -> Tensor:
        sizes = shape.tolist()
        if not keeps_zeros:
            sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return reshape


def _clip(attributes: Attributes) -> Function:
    low, high = attributes.get("min"), attributes.get("max")

    def clip(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
        least, most = (low if least is None else least), (high if most is None else most)
        return x if least is None and most is None else torch.clamp(x, least, most)

    return clip


def _padded(
    x: Tensor, attributes: Attributes, kernel: Sequence[int], fill: float
) -> tuple[Tensor, bool]:
    """Return the images with what a window's `pads` or `auto_pad` add, and whether that is any."""
    sides = len(kernel)
    if x.dim() != sides + 2:
        raise NotImplementedError
    mode = attributes.get("auto_pad", "NOTSET")
    pads = list(attributes.get("pads", [0] * 2 * sides))
    if mode == "VALID":
        pads = [0] * 2 * sides
    elif mode != "NOTSET":
        strides = attributes.get("strides", [1] * sides)
        dilations = attributes.get("dilations", [1] * sides)
        totals = [
            max(0, (-(-size // stride) - 1) * stride + (side - 1) * dilation + 1 - size)
            for size, stride, side, dilation in zip(
                x.shape[2:], strides, kernel, dilations, strict=True
            )
        ]
        halves = [total // 2 for total in totals]
        rests = [total - half for total, half in zip(totals, halves, strict=True)]
        pads = halves + rests if mode == "SAME_UPPER" else rests + halves
    if not any(pads):
        return x, False
    # PyTorch's order: the last axis first, its two ends side by side.
    ends = zip(reversed(pads[:sides]), reversed(pads[sides:]), strict=True)
    return F.pad(x, [end for pair in ends for end in pair], value=fill), True


def _convolution(attributes: Attributes) -> Function:
    groups = attributes.get("group", 1)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        sides = weight.dim() - 2
        run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[sides]
        stride = attributes.get("strides", [1] * sides)
        dilation = attributes.get("dilations", [1] * sides)
        pads = attributes.get("pads", [0] * 2 * sides)
        if attributes.get("auto_pad", "NOTSET") == "NOTSET" and pads[:sides] == pads[sides:]:
            padding = pads[:sides]
        else:
            x, _ = _padded(x, attributes, weight.shape[2:], 0.0)
            padding = [0] * sides
        return run(x, weight, bias, stride, padding, dilation, groups)

    return convolve


def _max_pool(attributes: Attributes) -> Function:
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))
    run = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    up = bool(attributes.get("ceil_mode", 0))

    def pool(x: Tensor) -> Any:
        x, _ = _padded(x, attributes, kernel, -torch.inf)
        return run(x, kernel, strides, dilation=dilations, ceil_mode=up)

    return pool


def _average_pool(attributes: Attributes) -> Function:
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(kernel))
    run: Function = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    up = bool(attributes.get("ceil_mode", 0))
    counts_pads = bool(attributes.get("count_include_pad", 0))
    if any(dilation != 1 for dilation in attributes.get("dilations", ())):
        raise NotImplementedError

    def pool(x: Tensor) -> Tensor:
        padded, is_padded = _padded(x, attributes, kernel, 0.0)
        means: Tensor = run(padded, kernel, strides, ceil_mode=up)
        if not is_padded or counts_pads:
            return means
        inside, _ = _padded(torch.ones_like(x[:1, :1]), attributes, kernel, 0.0)
        shares: Tensor = run(inside, kernel, strides, ceil_mode=up)
        return means / shares

    return pool


def _over_places(reduce: Callable[[Tensor, list[int]], Tensor]) -> Callable[[Attributes], Function]:
    """A global pooling: whatever lies behind batch and channels becomes one place."""
    return lambda attributes: lambda x: reduce(x, list(range(2, x.dim())))


def _pad(attributes: Attributes) -> Function:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    mode = modes[attributes.get("mode", "constant")]
    stated_pads: Sequence[int] = attributes.get("pads", ())
    stated_fill = attributes.get("value", 0.0)

    def pad(
        x: Tensor,
        pads: Tensor | None = None,
        fill: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        ends = stated_pads if pads is None else pads.tolist()
        chosen = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes.tolist()]
        each = [(0, 0)] * x.dim()
        for place, axis in enumerate(chosen):
            each[axis] = (ends[place], ends[place + len(chosen)])
        if mode == "constant":
            flat = [end for pair in reversed(each) for end in pair]
            return F.pad(x, flat, value=stated_fill if fill is None else float(fill))
        if any(sum(pair) for pair in each[:2]):
            raise NotImplementedError
        return F.pad(x, [end for pair in reversed(each[2:]) for end in pair], mode=mode)

    return pad


_REDUCTIONS: Final[dict[str, Callable[[Tensor, list[int], bool], Tensor]]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def _reduction(
    reduce: Callable[[Tensor, list[int], bool], Tensor],
) -> Callable[[Attributes], Function]:
    """Axes are an attribute or, in later opsets, an input; without any, they are all meant."""

    def make(attributes: Attributes) -> Function:
        stated = list(attributes.get("axes", ()))
        keep = bool(attributes.get("keepdims", 1))
        does_nothing = bool(attributes.get("noop_with_empty_axes", 0))

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            chosen = stated if axes is None else axes.tolist()
            if not chosen and does_nothing:
                return x
            return reduce(x, chosen or list(range(x.dim())), keep)

        return run

    return make


def _slice(attributes: Attributes) -> Function:
    """Parts of axes, stated as in Python; in the first version of it by attributes."""
    stated = [attributes.get(name) for name in ("starts", "ends", "axes")]

    def cut(x: Tensor, *given: Tensor | None) -> Tensor:
        lists: Sequence[Any] = [None if v is None else v.tolist() for v in given] or stated
        starts, ends, axes, steps = [*lists, None, None][:4]
        parts = zip(
            starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
        )
        for start, end, axis, step in parts:
            chosen = range(x.shape[axis])[start:end:step]
            x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64))
        return x

    return cut


def _split(attributes: Attributes) -> Function:
    axis, stated = attributes.get("axis", 0), attributes.get("split")
    number = attributes["num_outputs"]

    def split(x: Tensor, sizes: Tensor | None = None) -> Any:
        chosen = stated if sizes is None else sizes.tolist()
        return torch.split(x, chosen or -(-x.shape[axis] // number), dim=axis)

    return split


def _batch_norm(attributes: Attributes) -> Function:
    epsilon = attributes.get("epsilon", 1e-5)
    if attributes.get("training_mode", 0):
        raise NotImplementedError
    return lambda x, gain, offset, mean, var: F.batch_norm(x, mean, var, gain, offset, eps=epsilon)


def _instance_norm(attributes: Attributes) -> Function:
    epsilon = attributes.get("epsilon", 1e-5)
    return lambda x, gain, offset: F.instance_norm(x, weight=gain, bias=offset, eps=epsilon)


def _layer_norm(attributes: Attributes) -> Function:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, gain, offset=None: F.layer_norm(x, x.shape[axis:], gain, offset, epsilon)


def _group_norm(attributes: Attributes) -> Function:
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)

    def norm(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        # Before opset 21 there was one of each a group.
        if gain.numel() != x.shape[1]:
            gain, offset = (v.repeat_interleave(x.shape[1] // groups) for v in (gain, offset))
        return F.group_norm(x, groups, gain, offset, epsilon)

    return norm


def _gelu(attributes: Attributes) -> Function:
    approximate = attributes.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _swish(attributes: Attributes) -> Function:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _grid_sample(attributes: Attributes) -> Function:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode: str = attributes.get("mode", "linear")
    edge: str = attributes.get("padding_mode", "zeros")
    aligned = bool(attributes.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, modes.get(mode, mode), edge, aligned)


FUNCTIONS: Final[dict[str, Callable[[Attributes], Function]]] = {
    "Dropout": _identity,
    "Cast": _cast,
    "CastLike": lambda attributes: lambda x, like: x.to(like.dtype),
    "Reshape": _reshape,
    "Clip": _clip,
    "Conv": _convolution,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _over_places(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _over_places(lambda x, axes: x.amax(axes, keepdim=True)),
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "Gelu": _gelu,
    "Mish": lambda attributes: F.mish,
    "Swish": _swish,
    "GridSample": _grid_sample,
    **{name: _reduction(reduce) for name, reduce in _REDUCTIONS.items()},
}
