"""Plain convolutional networks, as people write them themselves."""

from __future__ import annotations

from typing import Annotated, Literal

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
    classifier,
    conv_block,
    halved,
    pooling_layer,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["CNN"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CNN(Architecture):
    """Blocks of convolutions that each halve the sides, then one or two linear layers.

    `channels` are the blocks', `convolutions` is how many each has; `stride` as `pooling` gives a
    block's last convolution stride 2. `head` says whether the linear layers see every pixel or
    the average over them; `hidden` is the size of the first of them, 0 for none; `dropout` stands
    before each. `bias` is the convolutions', also where a norm follows.
    """

    channels: Annotated[tuple[Size, ...], Field(min_length=1)] = (16, 32)
    convolutions: Annotated[int, Field(ge=1, le=3)] = 1
    kernel: OddKernel = 3
    activation: Activation = "relu"
    pooling: Pooling | Literal["stride"] = "max"
    norm: Norm = "none"
    dropout: DropoutRate = 0.0
    head: Literal["flatten", "global"] = "flatten"
    hidden: Annotated[int, Field(ge=0)] = 64
    bias: bool = True

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        modules: list[nn.Module] = []
        before = input_spec.channels
        for after in self.channels:
            modules += self._block(before, after)
            before = after
        height, width = self._sides(input_spec)
        if self.head == "global":
            modules.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        linear = classifier(
            before * height * width,
            (self.hidden,) if self.hidden else (),
            input_spec.num_classes,
            activation=self.activation,
            dropout=self.dropout,
        )
        return nn.Sequential(*modules, nn.Flatten(), *linear)

    def _block(self, in_channels: int, out_channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for place in range(self.convolutions):
            last = place == self.convolutions - 1
            modules.append(
                conv_block(
                    out_channels if place else in_channels,
                    out_channels,
                    kernel=self.kernel,
                    stride=2 if last and self.pooling == "stride" else 1,
                    norm=self.norm,
                    activation=self.activation,
                    bias=self.bias,
                )
            )
        if self.pooling != "stride":
            modules.append(pooling_layer(self.pooling))
        return modules

    def _sides(self, input_spec: InputSpec) -> tuple[int, int]:
        if self.pooling != "stride":
            return halved(input_spec, len(self.channels))
        # A padded convolution rounds up, so that some pixel is always left.
        return halved(input_spec, 0, stem_stride=2 ** len(self.channels))
