"""What stands before and behind a PyTorch network, as modules, so that gradients pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from litmus.formats.preprocessing import Preprocessing
from litmus.models import LOG_FLOOR

__all__ = ["ChannelsLast", "FlooredLog", "Ordered", "Preprocessed"]


class ChannelsLast(nn.Module):
    """A network that takes (n, h, w, c), as one that takes (n, c, h, w)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs."""
        outputs: torch.Tensor = self.network(images.permute(0, 2, 3, 1))
        return outputs


class Preprocessed(nn.Module):
    """`Preprocessing.apply`: images (n, c, h, w) in [0, 1] to what a network wants."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._scale, self._bgr = preprocessing.scale, preprocessing.channels == "bgr"
        for name in ("mean", "std"):
            value = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, value.view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's input."""
        values = images.flip(1) if self._bgr else images
        return (values * self._scale - self.mean) / self.std  # type: ignore[operator]


class Ordered(nn.Module):
    """Outputs (n, k) in another order."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return output `order[i]` as the i-th."""
        return outputs[:, self.order]  # type: ignore[index]


class FlooredLog(nn.Module):
    """Probabilities (n, k) as logits: log(p + e^-30)."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, k)."""
        return torch.log(outputs.clamp(min=0) + math.exp(LOG_FLOOR))
