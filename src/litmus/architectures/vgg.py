"""VGG-like networks (Simonyan and Zisserman 2014), as in the paper's experiments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture, conv_norm_relu
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["VGG"]

Multiple = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VGG(Architecture):
    """3x3 convolutions with BatchNorm, 2x2 maximum pooling, then linear layers.

    `configuration` is VGG's: a number is a convolution with that many times `width` channels, `M`
    a pooling. `stem_stride` 2 halves the first convolution's output, which the paper does not
    do: a quarter of the work. `hidden` adds a layer of that size before the last one.
    """

    width: Annotated[int, Field(ge=1)] = 16
    stem_stride: Annotated[int, Field(ge=1, le=4)] = 1
    configuration: tuple[Multiple | Literal["M"], ...] = (1, 2, "M", 3, 3, "M")
    hidden: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.configuration or self.configuration[0] == "M":
            raise ValueError("configuration must begin with a convolution")

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        modules: list[nn.Module] = []
        channels, stride = input_spec.channels, self.stem_stride
        sides = [input_spec.height, input_spec.width]
        for item in self.configuration:
            if item == "M":
                modules.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
                continue
            modules.append(conv_norm_relu(channels, item * self.width, stride=stride))
            sides = [(side - 1) // stride + 1 for side in sides]
            channels, stride = item * self.width, 1
        if min(sides) < 1:
            raise RecipeError("pooling leaves no pixel", got=f"{self.configuration} {input_spec}")
        features = channels * sides[0] * sides[1]
        modules.append(nn.Flatten())
        if self.hidden:
            modules += [nn.Linear(features, self.hidden), nn.ReLU()]
        modules.append(nn.Linear(self.hidden or features, input_spec.num_classes))
        return nn.Sequential(*modules)
