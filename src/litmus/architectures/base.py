"""What every architecture is: a frozen description that builds a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from litmus.architectures.input_scaling import InputScaling, Scaling
from litmus.models import InputSpec
from litmus.schema import STRICT
from litmus.seeds import derive_seed

__all__ = ["Architecture"]

_SAMPLE: Final = 2000
"""So many images say enough of the data: 128,000 patches of 4x4 pixels on CIFAR10."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Architecture(ABC):
    """A network's hyperparameters.

    The network takes float32 images (n, c, h, w) in [0, 1] and returns logits (n, k). Its
    activations are modules, and each BatchNorm follows its convolution in an `nn.Sequential`
    where there is one before it, so that fitting can drop the one and fold the other.

    `input_scaling` puts a layer in front that gives the others their input in [-1, 1] (`signed`),
    in [0, 255] (`bytes`), or with each channel's mean and deviation in the training images taken
    out (`standard`); with None or `none` there is no layer. As every parameter that came later
    than the first zoos, it may be None, which leaves the table, and so a model's id, as before.
    """

    input_scaling: Scaling | Literal["none"] | None = None

    @abstractmethod
    def layers(self, input_spec: InputSpec) -> nn.Module:
        """Return the network behind the scaling, its weights from torch's global generator."""

    def build(self, input_spec: InputSpec, *, seed: int) -> nn.Module:
        """Return the network, its weights a function of `seed`; no global state changes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            return self._whole(input_spec)

    def initialise(self, module: nn.Module, images: torch.Tensor) -> None:
        """Set, in place, what the network takes from its training images (uint8) beforehand."""
        sample = images[:_SAMPLE].float() / 255
        if self._scaling is None:
            self.prepare(module, sample)
            return
        assert isinstance(module, nn.Sequential)
        scaling, layers = module
        assert isinstance(scaling, InputScaling)
        if self._scaling == "standard":
            scaling.fit(images)
        self.prepare(layers, scaling(sample))

    def prepare(  # noqa: B027 - a hook that most leave empty
        self, layers: nn.Module, images: torch.Tensor
    ) -> None:
        """Set, in place, what `layers` take from images: float32 (n, c, h, w), scaled for them.

        Most take nothing.
        """

    def skeleton(self, input_spec: InputSpec) -> nn.Module:
        """Return the network in evaluation mode without memory for its weights.

        `load_state_dict(..., assign=True)` gives it some.
        """
        with torch.device("meta"):
            return self._whole(input_spec).eval()

    @property
    def _scaling(self) -> Scaling | None:
        return None if self.input_scaling == "none" else self.input_scaling

    def _whole(self, input_spec: InputSpec) -> nn.Module:
        layers = self.layers(input_spec)
        if self._scaling is None:
            return layers
        return nn.Sequential(InputScaling(self._scaling, input_spec.channels), layers)
