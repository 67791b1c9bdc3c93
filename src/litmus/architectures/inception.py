"""Small Inception networks (Szegedy et al. 2014)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import (
    Activation,
    Block,
    Concatenation,
    DropoutRate,
    Norm,
    Size,
    conv_block,
    halved,
    head_by_average,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["Inception"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Inception(Architecture):
    """A stem, then `stages` of `blocks` blocks of parallel branches, 2x2 pooling between stages.

    The stem has `width` channels, the stages' blocks 2, 4, ... times as many. `dropout` stands
    before the last layer.
    """

    width: Annotated[int, Field(ge=4, multiple_of=4)] = 8
    stages: Size = 3
    blocks: Size = 1
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 2
    activation: Activation = "relu"
    norm: Norm = "batch"
    dropout: DropoutRate = 0.0

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        halved(input_spec, self.stages - 1, stem_stride=self.stem_stride)
        norm, activation = self.norm, self.activation
        modules: list[nn.Module] = [
            conv_block(
                input_spec.channels,
                self.width,
                stride=self.stem_stride,
                norm=norm,
                activation=activation,
            )
        ]
        channels = self.width
        for stage in range(self.stages):
            if stage:
                modules.append(nn.MaxPool2d(2))
            for _ in range(self.blocks):
                out = self.width * 2 ** (stage + 1)
                modules.append(InceptionBlock(channels, out, norm=norm, activation=activation))
                channels = out
        head = head_by_average(channels, input_spec.num_classes, dropout=self.dropout)
        return nn.Sequential(*modules, *head)


class InceptionBlock(Block):
    """1x1, 3x3 and 5x5 convolutions and a 3x3 maximum pooling side by side.

    They give 2, 4, 1 and 1 eighths of the channels, about as in GoogLeNet. A 1x1 convolution
    narrows the input of the 3x3 and the 5x5 one, another the output of the pooling.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        part = out_channels // 8

        def convolution(before: int, after: int, kernel: int) -> nn.Sequential:
            return conv_block(before, after, kernel=kernel, norm=norm, activation=activation)

        self.branches = nn.ModuleList(
            [
                convolution(in_channels, 2 * part, 1),
                nn.Sequential(
                    *convolution(in_channels, 2 * part, 1), *convolution(2 * part, 4 * part, 3)
                ),
                nn.Sequential(*convolution(in_channels, part, 1), *convolution(part, part, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), *convolution(in_channels, part, 1)),
            ]
        )
        self.join = Concatenation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches' channels one after the other (n, out_channels, h, w)."""
        joined: torch.Tensor = self.join(*(branch(x) for branch in self.branches))
        return joined
