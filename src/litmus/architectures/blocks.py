"""What the networks are put together from: activations, norms, poolings, heads, and their names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import nn

from litmus.errors import RecipeError
from litmus.models import InputSpec

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Block",
    "Concatenation",
    "DropoutRate",
    "Norm",
    "OddKernel",
    "Pooling",
    "Size",
    "classifier",
    "conv_block",
    "halved",
    "head_by_average",
    "norm_layers",
    "pooling_layer",
]

Size = Annotated[int, Field(ge=1)]
"""A number of channels, neurons, layers or blocks."""
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
"""The share of values that training sets to zero; 0 leaves the layer out."""
Norm = Literal["batch", "group", "none"]
Pooling = Literal["max", "average"]
OddKernel = Literal[3, 5, 7]
"""The side of a square kernel in pixels; padding by half of it keeps the image's sides."""
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]

ACTIVATIONS: Final[dict[Activation, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

_POOLINGS: Final[dict[Pooling, type[nn.MaxPool2d | nn.AvgPool2d]]] = {
    "max": nn.MaxPool2d,
    "average": nn.AvgPool2d,
}
_GROUPS: Final = 4


class Block(nn.Module):
    """A container that can be stacked: its `forward` is right for several networks at a time.

    Several networks lie side by side in the channels, (n, models * c, h, w), model by model. Sums
    and activations are right as they are; whatever mixes channels or images asks `models`.
    """

    models: int = 1


class Concatenation(Block):
    """Tensors (n, c, h, w) put one after the other in the channels; it has no weights."""

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Return (n, sum of c, h, w)."""
        if self.models == 1:
            return torch.cat(parts, dim=1)
        apart = [torch.unflatten(part, 1, (self.models, -1)) for part in parts]
        return torch.cat(apart, dim=2).flatten(1, 2)


def conv_block(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    norm: Norm = "batch",
    activation: Activation | None = "relu",
    bias: bool | None = None,
) -> nn.Sequential:
    """A padded convolution, its norm and its activation, where these are asked for.

    By default it has a bias only where no norm follows, which would undo it.
    """
    with_bias = norm == "none" if bias is None else bias
    modules: list[nn.Module] = [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=with_bias,
        ),
        *norm_layers(norm, out_channels),
    ]
    if activation is not None:
        modules.append(ACTIVATIONS[activation]())
    return nn.Sequential(*modules)


def norm_layers(norm: Norm, channels: int) -> list[nn.Module]:
    """Return the normalisation of so many channels: one layer, or none.

    Group normalisation has four groups, or as many as divide the channels.
    """
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(math.gcd(channels, _GROUPS), channels)] if norm == "group" else []


def pooling_layer(pooling: Pooling) -> nn.Module:
    """Return a pooling of 2x2 pixels, which drops an odd side's last row or column."""
    return _POOLINGS[pooling](2)


def halved(input_spec: InputSpec, times: int, *, stem_stride: int = 1) -> tuple[int, int]:
    """Return the image's sides after a padded stem and so many 2x2 poolings.

    Raises RecipeError where no pixel is left.
    """
    height, width = (
        ((side - 1) // stem_stride + 1) // 2**times
        for side in (input_spec.height, input_spec.width)
    )
    if min(height, width) < 1:
        raise RecipeError(
            "pooling leaves no pixel",
            expected="larger images or fewer poolings",
            got=f"{times} poolings of {input_spec}",
        )
    return height, width


def classifier(
    features: int,
    hidden: Iterable[int],
    num_classes: int,
    *,
    activation: Activation,
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Return linear layers from features (n, f) to logits (n, k), each behind a dropout.

    `hidden` are the sizes of those before the last one, which have an activation.
    """
    modules: list[nn.Module] = []
    for size in hidden:
        modules += [*_dropout(dropout), nn.Linear(features, size), ACTIVATIONS[activation]()]
        features = size
    return [*modules, *_dropout(dropout), nn.Linear(features, num_classes)]


def head_by_average(channels: int, num_classes: int, *, dropout: float = 0.0) -> list[nn.Module]:
    """Return a global average pooling and a linear layer: (n, c, h, w) to logits (n, k)."""
    layers = [*_dropout(dropout), nn.Linear(channels, num_classes)]
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers]


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate else []
