"""Gradients of convolutions and their transposes; their weights are constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.formats.gradients.builder import Builder, Cotangents, Node, NoGradientError

__all__ = ["Window", "convolution", "convolution_backward", "transposed_convolution"]

_FEW: Final = 16
"""A convolution of stride 1 to fewer channels is faster the other way: as a transposed one."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a kernel moves: one number an axis; `pads` are those before, then those after."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, node: Node, b: Builder, kernel: tuple[int, ...]) -> Window:
        """Read a node that convolves or pools, with its automatic pads worked out."""
        rank = len(kernel)
        strides = tuple(node.get("strides", [1] * rank))
        dilations = tuple(node.get("dilations", [1] * rank))
        auto = node.get("auto_pad", "NOTSET")
        pads = tuple(node.get("pads", [0] * (2 * rank)))
        if auto == "VALID":
            pads = (0,) * (2 * rank)
        elif auto != "NOTSET":
            sizes = [b.size(node.inputs[0], 2 + i) for i in range(rank)]
            missing = [
                max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
                for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
            ]
            small, large = [m // 2 for m in missing], [m - m // 2 for m in missing]
            pads = (*large, *small) if auto == "SAME_LOWER" else (*small, *large)
        return cls(kernel=kernel, strides=strides, dilations=dilations, pads=pads)

    @property
    def spans(self) -> tuple[int, ...]:
        """How far the kernel reaches from its first place to its last."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of a convolution."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": self.pads,
        }


def convolution(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """Conv."""
    x, w, *_ = node.inputs
    weights = b.known(w, "weight")
    if any(b.needs(name) for name in node.inputs[1:] if name):
        raise NoGradientError("its weight or bias is no constant")
    window = Window.of(node, b, weights.shape[2:])
    dx = convolution_backward(
        b, str(cotangents[0]), weights, window, node.get("group", 1), (x, node.outputs[0])
    )
    return [dx, *[None] * (len(node.inputs) - 1)]


def convolution_backward(
    b: Builder,
    dy: str,
    weights: NDArray[Any],
    window: Window,
    group: int,
    names: tuple[str, str],
) -> str:
    """Return the cotangent of a convolution's input; `names` are its input and its output."""
    rank = len(window.kernel)
    spans, strides = window.spans, window.strides
    ends = [span - pad for span, pad in zip(spans * 2, window.pads, strict=True)]
    whole = set(strides) == {1} and min(ends, default=0) >= 0
    if whole and weights.shape[1] * group >= _FEW and group in (1, weights.shape[0]):
        flipped = _flipped(weights, group)
        return b.op(
            "Conv", dy, b.const(flipped), group=group, pads=ends, dilations=window.dilations
        )
    extra = [
        b.size(names[0], 2 + i)
        - ((b.size(names[1], 2 + i) - 1) * strides[i] + spans[i] + 1)
        + window.pads[i]
        + window.pads[rank + i]
        for i in range(rank)
    ]
    if all(0 <= e < max(s, d) for e, s, d in zip(extra, strides, window.dilations, strict=True)):
        return b.op(
            "ConvTranspose",
            dy,
            b.const(weights),
            group=group,
            output_padding=extra,
            **window.attributes,
        )
    raise NoGradientError("its pads are odd")


def _flipped(weights: NDArray[Any], group: int) -> NDArray[Any]:
    """The weights (out, in / group, ...) of the convolution that goes back."""
    outs, ins, *kernel = weights.shape
    split = weights.reshape(group, outs // group, ins, *kernel).swapaxes(1, 2)
    turned = split.reshape(group * ins, outs // group, *kernel)
    return np.ascontiguousarray(np.flip(turned, axis=tuple(range(2, turned.ndim))))


def transposed_convolution(node: Node, b: Builder, cotangents: Cotangents) -> Cotangents:
    """ConvTranspose, whose gradient is a convolution with the same weights."""
    weights = b.known(node.inputs[1], "weight")
    kernel = weights.shape[2:]
    rank = len(kernel)
    window = Window.of(_plain(node), b, kernel)
    auto, shape = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    if shape is not None or auto.startswith("SAME"):
        more = node.get("output_padding", [0] * rank)
        total = [
            max(
                0,
                window.strides[i] * (b.size(node.inputs[0], 2 + i) - 1)
                + more[i]
                + window.spans[i]
                + 1
                - b.size(node.outputs[0], 2 + i),
            )
            for i in range(rank)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
        window = Window(
            kernel=kernel, strides=window.strides, dilations=window.dilations, pads=pads
        )
    attributes = {**window.attributes, "group": node.get("group", 1)}
    dx = b.op("Conv", str(cotangents[0]), node.inputs[1], **attributes)
    return [dx, *[None] * (len(node.inputs) - 1)]


def _plain(node: Node) -> Node:
    """The node without automatic pads, which mean something else of a transposed convolution."""
    copied = type(node.proto)()
    copied.CopyFrom(node.proto)
    auto = node.get("auto_pad", "NOTSET")
    dropped = {"auto_pad"} | ({"pads"} if auto != "NOTSET" else set())
    kept = [a for a in copied.attribute if a.name not in dropped]
    del copied.attribute[:]
    copied.attribute.extend(kept)
    return Node(copied)
