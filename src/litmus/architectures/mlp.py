"""Networks of linear layers alone."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import Activation, DropoutRate, Size, classifier
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["MLP"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MLP(Architecture):
    """All pixels in a row, then linear layers of the sizes `hidden`, each behind a `dropout`."""

    hidden: Annotated[tuple[Size, ...], Field(min_length=1)] = (256, 128)
    activation: Activation = "relu"
    dropout: DropoutRate = 0.0

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network."""
        linear = classifier(
            math.prod(input_spec.image_shape),
            self.hidden,
            input_spec.num_classes,
            activation=self.activation,
            dropout=self.dropout,
        )
        return nn.Sequential(nn.Flatten(), *linear)
