"""Small densely connected networks (Huang et al. 2017)."""

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
    Concatenation,
    Norm,
    Size,
    conv_block,
    halved,
    head_by_average,
    norm_layers,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["DenseNet"]

_BOTTLENECK = 4
"""Times `growth`: the channels between a bottleneck's two convolutions, as in the paper."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DenseNet(Architecture):
    """Dense blocks of `blocks` layers, each of which adds `growth` channels to what it sees.

    A layer is norm, activation and 3x3 convolution; `bottleneck` puts a 1x1 convolution before
    it. The transition between two blocks keeps the share `compression` of the channels and halves
    the sides. The stem has twice `growth` channels. Norms before a concatenation can't be folded.
    """

    growth: Size = 8
    blocks: Annotated[tuple[Size, ...], Field(min_length=1)] = (3, 3)
    bottleneck: bool = False
    compression: Annotated[float, Field(gt=0, le=1)] = 0.5
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 2
    activation: Activation = "relu"
    norm: Norm = "batch"

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        halved(input_spec, len(self.blocks) - 1, stem_stride=self.stem_stride)
        channels = 2 * self.growth
        modules: list[nn.Module] = [
            nn.Conv2d(input_spec.channels, channels, 3, self.stem_stride, 1, bias=False)
        ]
        for place, count in enumerate(self.blocks):
            if place:
                kept = max(1, int(channels * self.compression))
                transition = nn.Conv2d(channels, kept, 1, bias=False)
                modules += [*self._before(channels), transition, nn.AvgPool2d(2)]
                channels = kept
            for _ in range(count):
                modules.append(DenseLayer(self._layer(channels)))
                channels += self.growth
        modules += self._before(channels)
        return nn.Sequential(*modules, *head_by_average(channels, input_spec.num_classes))

    def _before(self, channels: int) -> list[nn.Module]:
        return [*norm_layers(self.norm, channels), ACTIVATIONS[self.activation]()]

    def _layer(self, channels: int) -> nn.Sequential:
        modules = self._before(channels)
        if self.bottleneck:
            between = _BOTTLENECK * self.growth
            modules += conv_block(
                channels, between, kernel=1, norm=self.norm, activation=self.activation
            )
            channels = between
        return nn.Sequential(*modules, nn.Conv2d(channels, self.growth, 3, 1, 1, bias=False))


class DenseLayer(Block):
    """x and F(x), one after the other."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.join = Concatenation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, c + growth, h, w) for x (n, c, h, w)."""
        joined: torch.Tensor = self.join(x, self.layer(x))
        return joined
