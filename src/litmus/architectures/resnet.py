"""Small residual networks for small images (He et al. 2015, section 4.2)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import (
    ACTIVATIONS,
    Activation,
    Block,
    Norm,
    Size,
    conv_block,
    head_by_average,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["ResNet"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNet(Architecture):
    """Three stages of `blocks` basic blocks with `width`, 2 and 4 times as many channels.

    `activation` None is ReLU, `norm` None BatchNorm.
    """

    width: Size = 16
    blocks: Size = 1
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1
    activation: Activation | None = None
    norm: Norm | None = None

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network: 6 * blocks + 2 layers, global average pooling before the last."""
        norm, activation = self.norm or "batch", self.activation or "relu"
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
        for stage in range(3):
            for block in range(self.blocks):
                out = self.width * 2**stage
                stride = 2 if stage and block == 0 else 1
                modules.append(
                    BasicBlock(channels, out, stride=stride, norm=norm, activation=activation)
                )
                channels = out
        return nn.Sequential(*modules, *head_by_average(channels, input_spec.num_classes))


class BasicBlock(Block):
    """act(x + F(x)) with F two 3x3 convolutions; x is projected where its shape changes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        norm: Norm,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_block(in_channels, out_channels, stride=stride, norm=norm, activation=activation),
            *conv_block(out_channels, out_channels, norm=norm, activation=None),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv_block(
                in_channels, out_channels, kernel=1, stride=stride, norm=norm, activation=None
            )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output (n, out_channels, h / stride, w / stride)."""
        activated: torch.Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return activated
