"""How a network wants its input: a layer in front that scales images in [0, 1]."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import nn

__all__ = ["InputScaling", "Scaling"]

Scaling = Literal["signed", "standard", "bytes"]

_STEP: Final = 1 / 255
"""Of a pixel; a channel that never changes has no deviation to divide by."""


class InputScaling(nn.Module):
    """(x - offset) * factor for each channel of images in [0, 1].

    `signed` gives [-1, 1], `bytes` [0, 255], `standard` the mean 0 and the deviation 1 that `fit`
    takes from images; before, it changes nothing.
    """

    offset: torch.Tensor
    factor: torch.Tensor

    def __init__(self, scaling: Scaling, channels: int) -> None:
        super().__init__()
        starts = {"signed": (0.5, 2.0), "bytes": (0.0, 255.0), "standard": (0.0, 1.0)}
        offset, factor = starts[scaling]
        self.register_buffer("offset", torch.full((channels, 1, 1), offset))
        self.register_buffer("factor", torch.full((channels, 1, 1), factor))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images (n, c, h, w) scaled."""
        return (images - self.offset) * self.factor

    def fit(self, images: torch.Tensor) -> None:
        """Take mean and deviation of each channel from uint8 images (n, c, h, w)."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        for channel, pixels in enumerate(images.transpose(0, 1)):
            # Counts are exact and small, whatever the number of images.
            share = torch.bincount(pixels.flatten(), minlength=256).double() / pixels.numel()
            mean = (share * levels).sum()
            deviation = (share * (levels - mean) ** 2).sum().sqrt().clamp(min=_STEP)
            self.offset[channel] = mean
            self.factor[channel] = 1 / deviation
