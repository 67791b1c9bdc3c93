"""The gradients of a PyTorch network; those of ONNX graphs do without PyTorch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from litmus.models import Images, InputSpec, Objective

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["TorchGradients", "prepared"]


class TorchGradients:
    """A network with its BatchNorm folded and its weights frozen, channels last, as `Gradients`.

    `module` takes float32 images (n, c, h, w) in [0, 1] and returns logits (n, k); it is copied.
    """

    def __init__(self, module: nn.Module, input_spec: InputSpec) -> None:
        self.input_spec = input_spec
        self._module = prepared(module)

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return the logits (n, k)."""
        import torch

        with torch.inference_mode():
            found: NDArray[np.float32] = self._module(self._tensor(images)).numpy()
        return found

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        """Return logits (n, k), and each image's gradient of its own objective."""
        import torch

        aims = torch.from_numpy(targets)
        with torch.enable_grad():
            x = self._tensor(images).requires_grad_()
            logits = self._module(x)
            (gradients,) = torch.autograd.grad(logits, x, _to_logits(logits, aims, objective))
        return logits.detach().numpy(), gradients.contiguous().numpy()

    @staticmethod
    def _tensor(images: Images) -> torch.Tensor:
        import torch

        return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


def _to_logits(logits: torch.Tensor, targets: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Return the objective's gradient to the logits (n, k)."""
    from torch.nn import functional

    chosen = functional.one_hot(targets, logits.shape[1])
    values = logits.detach()
    if objective == "cross_entropy":
        return values.softmax(dim=1) - chosen
    others = values.masked_fill(chosen.bool(), -float("inf"))
    return (functional.one_hot(others.argmax(dim=1), logits.shape[1]) - chosen).to(values.dtype)


def prepared(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, BatchNorm folded, weights frozen, channels last."""
    import torch

    from litmus.architectures import fold_batch_norm

    ready = fold_batch_norm(copy.deepcopy(module).eval()).requires_grad_(False)
    return ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
