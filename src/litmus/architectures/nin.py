"""Network in Network (Lin et al. 2013)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import (
    Activation,
    DropoutRate,
    Norm,
    OddKernel,
    Pooling,
    Size,
    conv_block,
    halved,
    pooling_layer,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["NIN"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NIN(Architecture):
    """Blocks of one convolution and `pointwise` 1x1 convolutions; a map per class, averaged.

    `channels` are the blocks'; between two blocks stand a 2x2 pooling and a `dropout`. The class
    maps have no activation, so that the logits may be negative. The paper has no norm.
    """

    channels: Annotated[tuple[Size, ...], Field(min_length=1)] = (32, 64)
    pointwise: Annotated[int, Field(ge=1, le=3)] = 1
    kernel: OddKernel = 3
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 2
    activation: Activation = "relu"
    pooling: Pooling = "max"
    norm: Norm = "batch"
    dropout: DropoutRate = 0.0

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        halved(input_spec, len(self.channels) - 1, stem_stride=self.stem_stride)
        modules: list[nn.Module] = []
        before = input_spec.channels
        for place, after in enumerate(self.channels):
            if place:
                modules.append(pooling_layer(self.pooling))
                modules += [nn.Dropout(self.dropout)] if self.dropout else []
            modules += self._block(before, after, 1 if place else self.stem_stride)
            before = after
        modules.append(nn.Conv2d(before, input_spec.num_classes, 1))
        return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def _block(self, in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        norm, activation = self.norm, self.activation
        first = conv_block(
            in_channels,
            out_channels,
            kernel=self.kernel,
            stride=stride,
            norm=norm,
            activation=activation,
        )
        others = [
            conv_block(out_channels, out_channels, kernel=1, norm=norm, activation=activation)
            for _ in range(self.pointwise)
        ]
        return [first, *others]
