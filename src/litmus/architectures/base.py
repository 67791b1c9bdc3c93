"""What every architecture is: a frozen description that builds a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.models import InputSpec
from litmus.schema import STRICT
from litmus.seeds import derive_seed

__all__ = ["Architecture", "conv_norm_relu"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Architecture(ABC):
    """A network's hyperparameters.

    The network takes float32 images (n, c, h, w) in [0, 1] and returns logits (n, k). Its
    activations are modules, and each BatchNorm follows its convolution in an `nn.Sequential`, so
    that fitting can drop the one and fold the other.
    """

    @abstractmethod
    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network, its weights drawn from torch's global generator."""

    def build(self, input_spec: InputSpec, *, seed: int) -> nn.Module:
        """Return the network, its weights a function of `seed`; no global state changes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            return self.layers(input_spec)

    def initialise(  # noqa: B027 - a hook that most leave empty
        self, module: nn.Module, images: torch.Tensor
    ) -> None:
        """Set, in place, what an architecture takes from its training images (uint8) beforehand.

        Most take nothing.
        """

    def skeleton(self, input_spec: InputSpec) -> nn.Module:
        """Return the network in evaluation mode without memory for its weights.

        `load_state_dict(..., assign=True)` gives it some.
        """
        with torch.device("meta"):
            return self.layers(input_spec).eval()


def conv_norm_relu(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution without bias, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
