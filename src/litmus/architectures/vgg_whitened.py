"""A VGG-like network that learns in one pass over the data, after Jordan's airbench (2024)."""

from __future__ import annotations

from typing import Annotated, Final

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import ACTIVATIONS, Activation, Size, halved
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["VGGWhitened"]

_STEM_SIDE: Final = 4
_FLOOR: Final = 5e-4
"""Added to the eigenvalues: the faintest components are noise, not to be blown up."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VGGWhitened(Architecture):
    """Frozen whitening of 4x4 patches, then blocks of 3x3 convolution, pooling, BatchNorm, ReLU.

    The whitening convolution has stride 2; half of its `stem` channels are the leading principal
    components of the training images' patches, scaled to equal variance, the others their
    negatives. Each block halves the sides; `channels` are the blocks'. Pooling comes before
    BatchNorm and ReLU, which then have a quarter of the work. `activation` None is ReLU.
    """

    stem: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    channels: tuple[Size, ...] = (64, 128, 128)
    activation: Activation | None = None

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network; raises RecipeError where pooling leaves no pixel."""
        # The stem drops an odd side's last pixel, as a pooling does.
        height, width = halved(input_spec, 1 + len(self.channels))
        patch = input_spec.channels * _STEM_SIDE**2
        if self.stem > 2 * patch:
            raise RecipeError(
                "more stem channels than components and their negatives",
                expected=f"at most {2 * patch}",
                got=self.stem,
            )
        stem = nn.Conv2d(input_spec.channels, self.stem, _STEM_SIDE, 2, 1, bias=False)
        stem.weight.requires_grad_(False)
        activation = ACTIVATIONS[self.activation or "relu"]
        modules: list[nn.Module] = [stem, activation()]
        before = self.stem
        for after in self.channels:
            modules += [
                nn.Conv2d(before, after, 3, 1, 1, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(after),
                activation(),
            ]
            before = after
        modules += [nn.Flatten(), nn.Linear(before * height * width, input_spec.num_classes)]
        return nn.Sequential(*modules)

    def prepare(self, layers: nn.Module, images: torch.Tensor) -> None:
        """Set the whitening convolution from images as the layers see them (n, c, h, w)."""
        patches = F.unfold(images, _STEM_SIDE, stride=_STEM_SIDE).transpose(1, 2).flatten(0, 1)
        covariance = torch.cov(patches.T)
        variances, components = torch.linalg.eigh(covariance)
        leading = (components / (variances + _FLOOR).sqrt()).T.flip(0)[: self.stem // 2]
        assert isinstance(layers, nn.Sequential)
        stem = layers[0]
        assert isinstance(stem, nn.Conv2d)
        with torch.no_grad():
            stem.weight.copy_(torch.cat([leading, -leading]).view_as(stem.weight))
