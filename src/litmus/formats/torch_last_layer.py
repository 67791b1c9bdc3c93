"""The last linear layer of a PyTorch network: found by running it, and checked against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from litmus.errors import UnsupportedModelError
from litmus.models import InputSpec, LastLayer, Outputs, log_probabilities
from litmus.seeds import torch_generator

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["last_layer", "last_layer_tensors"]

_EXAMPLES: Final = 4
_TOLERANCE: Final = 1e-2
"""Of a log-probability; float32 and another order of sums leave far less."""


def last_layer(module: nn.Module, input_spec: InputSpec, outputs: Outputs) -> LastLayer:
    """Return weights (k, f) and bias (k,) of the last Linear or 1x1 Conv2d that is run.

    Features of several places are averaged, and a BatchNorm behind the layer is folded into it.
    Raises UnsupportedModelError where what comes of that is not what the network returns: its
    logits are made otherwise, then.
    """
    weights, bias = last_layer_tensors(module, input_spec, outputs)
    return weights.detach().numpy(), bias.detach().numpy()


def last_layer_tensors(
    module: nn.Module, input_spec: InputSpec, outputs: Outputs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same as float64 tensors, through which gradients reach the network's parameters.

    The network must be in evaluation mode, here as there.
    """
    from torch import nn

    calls, returned = _run(module, input_spec)
    linear = [i for i, (layer, _) in enumerate(calls) if not _is_norm(layer)]
    if not linear:
        raise _unsupported("no linear layer", type(module).__name__)
    layer, features = calls[linear[-1]]
    # A convolution's features have their channels before the places, a linear layer's behind.
    is_convolution = isinstance(layer, nn.Conv2d)
    places = features.flatten(2).transpose(1, 2) if is_convolution else features
    weights, bias = _affine(layer)
    for norm, _ in calls[linear[-1] + 1 :]:
        weights, bias = _folded(weights, bias, norm)
    rows = places.reshape(len(features), -1, features.shape[1 if is_convolution else -1]).mean(1)
    if weights.shape != (input_spec.num_classes, rows.shape[1]):
        raise _unsupported("the last layer is of another shape", tuple(weights.shape))
    logits = rows.double().numpy() @ weights.detach().numpy().T + bias.detach().numpy()
    difference = np.abs(log_probabilities(logits) - log_probabilities(returned, outputs)).max()
    if not difference <= _TOLERANCE:
        raise _unsupported("the outputs are not those of the last layer", f"off by {difference:g}")
    return weights, bias


def _run(
    module: nn.Module, input_spec: InputSpec
) -> tuple[list[tuple[nn.Module, torch.Tensor]], np.ndarray[Any, Any]]:
    """Return which layers were run, in that order, with what they were given, and the outputs."""
    import torch
    from torch import nn

    calls: list[tuple[nn.Module, torch.Tensor]] = []
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        calls.append((layer, inputs[0]))

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds)]
    generator = torch_generator(0, "last layer")
    images = torch.rand(_EXAMPLES, *input_spec.image_shape, generator=generator)
    try:
        with torch.inference_mode():
            returned = module(images).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return calls, returned


def _is_norm(layer: nn.Module) -> bool:
    from torch import nn

    return isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)


def _affine(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's weights and bias in float64; zeros where it has no bias."""
    import torch

    shape = tuple(layer.weight.shape)
    if len(shape) == 4 and (shape[2:] != (1, 1) or layer.groups != 1):
        raise _unsupported("the last layer is no 1x1 convolution", shape)
    weights = layer.weight.double().flatten(1)
    if layer.bias is None:
        return weights, torch.zeros(len(weights), dtype=torch.float64)
    return weights, layer.bias.double()


def _folded(
    weights: torch.Tensor, bias: torch.Tensor, norm: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer with a BatchNorm behind it; the running statistics are what evaluation uses."""
    if norm.running_mean is None or norm.num_features != len(weights):
        raise _unsupported("no BatchNorm of the classes", norm)
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    factor = 1 / (variance + norm.eps).sqrt()
    offset = mean.new_zeros(())
    if norm.affine:
        factor = factor * norm.weight.double()
        offset = norm.bias.double()
    return weights * factor[:, None], (bias - mean) * factor + offset


def _unsupported(what: str, got: object) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the network's last layer can't be read: {what}",
        expected="a Linear, or a 1x1 Conv2d and the average of its maps, that gives the logits",
        got=got,
    )
