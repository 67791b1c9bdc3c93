"""VGG-like networks (Simonyan and Zisserman 2014), as in the paper's experiments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import (
    ACTIVATIONS,
    Activation,
    Norm,
    Size,
    conv_block,
    halved,
)
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["VGG"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VGG(Architecture):
    """3x3 convolutions with BatchNorm, 2x2 maximum pooling, then linear layers.

    `configuration` is VGG's: a number is a convolution with that many times `width` channels, `M`
    a pooling. `stem_stride` 2 halves the first convolution's output, which the paper does not
    do: a quarter of the work. `hidden` adds a layer of that size before the last one.
    `activation` None is ReLU, `norm` None BatchNorm.
    """

    width: Size = 16
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1
    configuration: tuple[Size | Literal["M"], ...] = (1, 2, "M", 3, 3, "M")
    hidden: Annotated[int, Field(ge=0)] = 0
    activation: Activation | None = None
    norm: Norm | None = None

    def __post_init__(self) -> None:
        if not self.configuration or self.configuration[0] == "M":
            raise ValueError("configuration must begin with a convolution")

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        norm, activation = self.norm or "batch", self.activation or "relu"
        poolings = self.configuration.count("M")
        height, width = halved(input_spec, poolings, stem_stride=self.stem_stride)
        modules: list[nn.Module] = []
        before, stride = input_spec.channels, self.stem_stride
        for item in self.configuration:
            if item == "M":
                modules.append(nn.MaxPool2d(2))
                continue
            after = item * self.width
            modules.append(
                conv_block(before, after, stride=stride, norm=norm, activation=activation)
            )
            before, stride = after, 1
        features = before * height * width
        modules.append(nn.Flatten())
        if self.hidden:
            modules += [nn.Linear(features, self.hidden), ACTIVATIONS[activation]()]
        modules.append(nn.Linear(self.hidden or features, input_spec.num_classes))
        return nn.Sequential(*modules)
