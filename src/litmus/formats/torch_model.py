"""A PyTorch network that is already in memory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from litmus.formats.preprocessing import Preprocessing
from litmus.models import Gradients, Images, InputSpec, LastLayer, Outputs

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TorchModel"]


class TorchModel:
    """A network in evaluation mode as a `Model`.

    It takes float32 images (n, c, h, w) in [0, 1] and returns logits (n, k), or probabilities if
    `outputs` says so. With `preprocessing` None the network does by itself what its input needs;
    otherwise that stands before it, and what it leaves open reference images may find out.
    """

    def __init__(
        self,
        module: nn.Module,
        input_spec: InputSpec,
        *,
        outputs: Outputs = "logits",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._module = module.eval()
        self.input_spec = input_spec
        self.outputs: Outputs = outputs
        self.preprocessing = preprocessing
        if preprocessing is not None:
            preprocessing.check(input_spec.channels, type(module).__name__)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Return the network's outputs (n, k)."""
        import torch

        values = images if self.preprocessing is None else self.preprocessing.apply(images)
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._module(torch.from_numpy(values)).numpy()
        return outputs

    def with_preprocessing(self, preprocessing: Preprocessing) -> Self:
        """Return the same network fed otherwise."""
        preprocessing.check(self.input_spec.channels, type(self._module).__name__)
        other = copy.copy(self)
        other.preprocessing = preprocessing
        return other

    def torch_module(self) -> nn.Module:
        """Return the network in evaluation mode, with the preprocessing before it."""
        if self.preprocessing is None:
            return self._module
        from torch import nn

        from litmus.formats.torch_layers import Preprocessed

        return nn.Sequential(Preprocessed(self.preprocessing), self._module).eval()

    def gradients(self) -> Gradients:
        """Return the network with its gradients to images in [0, 1]."""
        from litmus.formats.torch_gradients import TorchGradients

        module = self.torch_module()
        if self.outputs == "probabilities":
            from torch import nn

            from litmus.formats.torch_layers import FlooredLog

            module = nn.Sequential(module, FlooredLog()).eval()
        return TorchGradients(module, self.input_spec)

    def last_layer(self) -> LastLayer:
        """Return the network's last layer; raises UnsupportedModelError where it has none."""
        from litmus.formats.torch_last_layer import last_layer

        return last_layer(self._module, self.input_spec, self.outputs)
