"""Depthwise-separable networks: MobileNet (Howard et al. 2017) and its second version."""

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
    DropoutRate,
    Norm,
    OddKernel,
    Size,
    conv_block,
    head_by_average,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["Separable"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Separable(Architecture):
    """A 3x3 stem, then `stages` of `blocks` blocks; each stage doubles the channels.

    A block is a depthwise convolution of side `kernel` and a pointwise one. With `expansion` > 0 it
    is an inverted residual (Sandler et al. 2018) on so many times its input's channels.
    The first stage keeps the stem's sides and doubles its `width`; the others halve the sides.
    """

    width: Size = 16
    stages: Size = 3
    blocks: Size = 1
    kernel: OddKernel = 3
    expansion: Annotated[int, Field(ge=0)] = 0
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 2
    activation: Activation = "relu"
    norm: Norm = "batch"
    dropout: DropoutRate = 0.0

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network."""
        modules: list[nn.Module] = [
            conv_block(
                input_spec.channels,
                self.width,
                stride=self.stem_stride,
                norm=self.norm,
                activation=self.activation,
            )
        ]
        channels = self.width
        for stage in range(self.stages):
            for block in range(self.blocks):
                out = self.width * 2 ** (stage + 1)
                stride = 2 if stage and block == 0 else 1
                modules.append(self._block(channels, out, stride))
                channels = out
        head = head_by_average(channels, input_spec.num_classes, dropout=self.dropout)
        return nn.Sequential(*modules, *head)

    def _block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        norm, activation = self.norm, self.activation
        inner = in_channels * (self.expansion or 1)
        depthwise = conv_block(
            inner,
            inner,
            kernel=self.kernel,
            stride=stride,
            groups=inner,
            norm=norm,
            activation=activation,
        )
        if not self.expansion:
            pointwise = conv_block(inner, out_channels, kernel=1, norm=norm, activation=activation)
            return nn.Sequential(*depthwise, *pointwise)
        expand = conv_block(in_channels, inner, kernel=1, norm=norm, activation=activation)
        # Linear, as in the paper: an activation would lose what the narrow output has to carry.
        project = conv_block(inner, out_channels, kernel=1, norm=norm, activation=None)
        residual = nn.Sequential(*expand, *depthwise, *project)
        if stride == 1 and in_channels == out_channels:
            return InvertedResidual(residual)
        return residual


class InvertedResidual(Block):
    """x + F(x)."""

    def __init__(self, residual: nn.Module) -> None:
        super().__init__()
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, shaped as x (n, c, h, w)."""
        residual: torch.Tensor = self.residual(x)
        return x + residual
