"""A PyTorch network that is already in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from litmus.models import Images, InputSpec, LastLayer, Outputs

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TorchModel"]


class TorchModel:
    """A network in evaluation mode as a `Model`; preprocessing, if it needs any, is its own.

    It takes float32 images (n, c, h, w) in [0, 1] and returns logits (n, k), or probabilities if
    `outputs` says so.
    """

    def __init__(
        self, module: nn.Module, input_spec: InputSpec, *, outputs: Outputs = "logits"
    ) -> None:
        self._module = module.eval()
        self.input_spec = input_spec
        self.outputs: Outputs = outputs

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Return the network's outputs (n, k)."""
        import torch

        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._module(torch.from_numpy(images)).numpy()
        return outputs

    def torch_module(self) -> nn.Module:
        """Return the network in evaluation mode."""
        return self._module

    def last_layer(self) -> LastLayer:
        """Return the network's last layer; raises UnsupportedModelError where it has none."""
        from litmus.formats.torch_last_layer import last_layer

        return last_layer(self._module, self.input_spec, self.outputs)
