"""The VGG-like network behind a spatial transformer (Jaderberg et al. 2015), for traffic signs."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.blocks import Block, conv_block
from litmus.architectures.vgg_whitened import VGGWhitened
from litmus.models import InputSpec
from litmus.schema import STRICT

__all__ = ["VGGSTN"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VGGSTN(VGGWhitened):
    """A VGG that sees the image through a learned affine window (paper 4.3).

    `localiser_width` is the number of channels of the two convolutions that place the window.
    """

    localiser_width: Annotated[int, Field(ge=1)] = 8

    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network."""
        transformer = SpatialTransformer(input_spec.channels, self.localiser_width)
        return nn.Sequential(transformer, super().layers(input_spec))

    def prepare(self, layers: nn.Module, images: torch.Tensor) -> None:
        """Set the whitening convolution, which sees the whole image at first."""
        assert isinstance(layers, nn.Sequential)
        super().prepare(layers[1], images)


class SpatialTransformer(Block):
    """Resamples each image (n, c, h, w) through an affine map that it computes from the image."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.localiser = nn.Sequential(
            conv_block(channels, width, stride=2),
            nn.MaxPool2d(2),
            conv_block(width, width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.affine = nn.Linear(16 * width, 6)
        # The window starts as the whole image.
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images as seen through their windows, same shape."""
        theta = self.affine(self.localiser(images)).view(-1, 2, 3)
        if self.models > 1:  # model by model, as the windows are
            n = len(images)
            images = torch.unflatten(images, 1, (self.models, -1)).transpose(0, 1).flatten(0, 1)
            seen = torch.unflatten(_resampled(images, theta), 0, (self.models, n))
            return seen.transpose(0, 1).flatten(1, 2)
        return _resampled(images, theta)


def _resampled(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
