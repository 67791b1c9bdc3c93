"""LeNet-5 (LeCun et al. 1998) and the CNN of BadNets (Gu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import ACTIVATIONS, Activation, Size
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["BadNetsCNN", "LeNet5"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LeNet5(Architecture):
    """Convolutions 6 and 16 of 5x5, each with 2x2 pooling, then 120, 84, k."""

    activation: Activation = "relu"

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel.

        The first convolution is padded, so that 28x28 and 32x32 fit.
        """
        activation = ACTIVATIONS[self.activation]
        sides = [(side // 2 - 4) // 2 for side in (input_spec.height, input_spec.width)]
        _check_sides(sides, input_spec)
        return nn.Sequential(
            nn.Conv2d(input_spec.channels, 6, 5, padding=2),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            activation(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * sides[0] * sides[1], 120),
            activation(),
            nn.Linear(120, 84),
            activation(),
            nn.Linear(84, input_spec.num_classes),
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BadNetsCNN(Architecture):
    """Convolutions 16 and 32 of 5x5, each with 2x2 average pooling, then 512, k.

    `activation` None is ReLU.
    """

    hidden: Size = 512
    activation: Activation | None = None

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        activation = ACTIVATIONS[self.activation or "relu"]
        sides = [((side - 4) // 2 - 4) // 2 for side in (input_spec.height, input_spec.width)]
        _check_sides(sides, input_spec)
        return nn.Sequential(
            nn.Conv2d(input_spec.channels, 16, 5),
            activation(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5),
            activation(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * sides[0] * sides[1], self.hidden),
            activation(),
            nn.Linear(self.hidden, input_spec.num_classes),
        )


def _check_sides(sides: Sequence[int], input_spec: InputSpec) -> None:
    if min(sides) < 1:
        raise RecipeError("pooling leaves no pixel", expected="larger images", got=input_spec)
