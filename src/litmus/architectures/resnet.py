"""Small residual networks for small images (He et al. 2015, section 4.2)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture, conv_norm_relu
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["ResNet"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNet(Architecture):
    """Three stages of `blocks` basic blocks with `width`, 2 and 4 times as many channels."""

    width: Annotated[int, Field(ge=1)] = 16
    blocks: Annotated[int, Field(ge=1)] = 1
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network: 6 * blocks + 2 layers, global average pooling before the last."""
        modules: list[nn.Module] = [
            conv_norm_relu(input_spec.channels, self.width, stride=self.stem_stride)
        ]
        channels = self.width
        for stage in range(3):
            for block in range(self.blocks):
                out = self.width * 2**stage
                stride = 2 if stage and block == 0 else 1
                modules.append(BasicBlock(channels, out, stride=stride))
                channels = out
        modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        modules.append(nn.Linear(channels, input_spec.num_classes))
        return nn.Sequential(*modules)


class BasicBlock(nn.Module):
    """relu(x + F(x)) with F two 3x3 convolutions; x is projected where its shape changes."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm_relu(in_channels, out_channels, stride=stride),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output (n, out_channels, h / stride, w / stride)."""
        activated: torch.Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return activated
