"""Wide residual networks with activations before convolutions (Zagoruyko and Komodakis 2016)."""

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
    DropoutRate,
    Norm,
    Size,
    conv_block,
    head_by_average,
    norm_layers,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["WideResNet"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WideResNet(Architecture):
    """A stem of `width` channels, then three stages with `widen`, 2 and 4 times as many.

    Each stage has `blocks` blocks of two 3x3 convolutions, each behind its norm and activation;
    `dropout` stands between the two. The norm before a sum can't be folded into a convolution.
    """

    width: Size = 8
    widen: Size = 2
    blocks: Size = 1
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 2
    activation: Activation = "relu"
    norm: Norm = "batch"
    dropout: DropoutRate = 0.0

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network: 6 * blocks + 2 layers, global average pooling before the last."""
        stem = nn.Conv2d(input_spec.channels, self.width, 3, self.stem_stride, 1, bias=False)
        modules: list[nn.Module] = [stem]
        channels = self.width
        for stage in range(3):
            for block in range(self.blocks):
                out = self.width * self.widen * 2**stage
                stride = 2 if stage and block == 0 else 1
                modules.append(self._block(channels, out, stride))
                channels = out
        modules += [*norm_layers(self.norm, channels), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*modules, *head_by_average(channels, input_spec.num_classes))

    def _block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        before = [*norm_layers(self.norm, in_channels), ACTIVATIONS[self.activation]()]
        first = conv_block(
            in_channels,
            out_channels,
            stride=stride,
            norm=self.norm,
            activation=self.activation,
        )
        dropout = [nn.Dropout(self.dropout)] if self.dropout else []
        second = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        shortcut = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return PreActivationBlock(
            nn.Sequential(*before), nn.Sequential(*first, *dropout, second), shortcut
        )


class PreActivationBlock(Block):
    """x + F(before(x)), or shortcut(before(x)) + F(before(x)) where the shape changes."""

    def __init__(self, before: nn.Module, residual: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.before, self.residual, self.shortcut = before, residual, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output (n, out_channels, h / stride, w / stride)."""
        seen = self.before(x)
        residual: torch.Tensor = self.residual(seen)
        return residual + (x if self.shortcut is None else self.shortcut(seen))
