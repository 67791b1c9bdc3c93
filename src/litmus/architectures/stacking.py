"""Networks of one architecture as one: grouped convolutions and batched linear layers.

Layer by layer, a stacked network does to G networks what each does by itself. Feature maps lie
side by side in the channels, (n, G * c, h, w), model by model; behind `nn.Flatten` there is one
row a model, (G, n, f). A layer's parameters keep their names and gain G as a first dimension.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import nn

from litmus.architectures.blocks import ACTIVATIONS, Block
from litmus.architectures.input_scaling import InputScaling
from litmus.errors import UsageError

__all__ = ["CONVOLUTIONS", "ConvolutionName", "SharedStack", "Stack"]

ConvolutionName = Literal["grouped", "im2col"]
CONVOLUTIONS: Final[tuple[ConvolutionName, ...]] = ("grouped", "im2col")


class Stack(nn.Module):
    """G networks as one: images (n, G * c, h, w), model by model, to logits (G, n, k).

    `state_dict` has the networks' own names, and G as each tensor's first dimension. `generators`
    are those that the networks' dropouts draw from, one each. `convolution` is how groups are
    computed: as `grouped` convolution, or as batched products of unfolded images. Raises
    UsageError, with the layer's name, for networks that differ or have a layer without a stacked
    form.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        generators: Sequence[torch.Generator] = (),
        convolution: ConvolutionName = "grouped",
    ) -> None:
        super().__init__()
        self.models = len(modules)
        states = [module.state_dict() for module in modules]
        if any(_shapes(state) != _shapes(states[0]) for state in states):
            raise UsageError("networks of different architectures can't be stacked")
        self.network = _stacked(modules[0], self.models, "")
        state = {name: torch.stack([each[name] for each in states]) for name in states[0]}
        self.network.load_state_dict(state)
        for layer in self.network.modules():
            if isinstance(layer, _Dropout):
                layer.generators = list(generators)
            if isinstance(layer, _Conv2d):
                layer.convolution = convolution

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (G, n, k) for each network's own images, (n, G * c, h, w)."""
        logits: torch.Tensor = self.network(images)
        return logits

    def state_of(self, model: int) -> Mapping[str, torch.Tensor]:
        """Return a copy of one network's state dict."""
        return {name: tensor[model].clone() for name, tensor in self.network.state_dict().items()}


class SharedStack(Stack):
    """G networks as one that are all asked the same images: (n, c, h, w) to logits (G, n, k).

    The first convolution is one of G times as many channels, where a network begins with one. All
    are in evaluation mode.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__(modules)
        self.eval()
        first = self.network
        while isinstance(first, nn.Sequential):
            first = first[0]
        # Any other layer or block in front wants the images of each network.
        self._wide = isinstance(first, _Conv2d) and first.groups == 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (G, n, k) for images (n, c, h, w)."""
        given = images if self._wide else torch.cat([images] * self.models, dim=1)
        logits: torch.Tensor = self.network(given)
        return logits


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _stacked(layer: nn.Module, models: int, name: str) -> nn.Module:
    """Return a layer's stacked form, its weights not yet filled in."""
    make = _LAYERS.get(type(layer))
    if make is not None:
        return make(layer, models)
    if type(layer) in _ALIKE:
        return copy.deepcopy(layer)
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    if own or not isinstance(layer, Block | nn.Sequential | nn.ModuleList):
        raise UsageError(
            "a layer has no stacked form",
            expected="layers of litmus.architectures",
            got=f"{name or 'the network'}: {type(layer).__name__}",
        )
    clone = copy.copy(layer)
    clone._modules = {
        key: _stacked(child, models, f"{name}.{key}".lstrip("."))
        for key, child in layer.named_children()
    }
    if isinstance(clone, Block):
        clone.models = models
    return clone


def _parameter(like: nn.Parameter | None, models: int) -> nn.Parameter | None:
    if like is None:
        return None
    return nn.Parameter(like.new_empty(models, *like.shape), requires_grad=like.requires_grad)


class _Weighted(nn.Module):
    """A layer with a weight and perhaps a bias for each model."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, like: Any, models: int) -> None:
        super().__init__()
        self.models = models
        self.register_parameter("weight", _parameter(like.weight, models))
        self.register_parameter("bias", _parameter(like.bias, models))

    def _flat_bias(self) -> torch.Tensor | None:
        return None if self.bias is None else self.bias.flatten()


class _Conv2d(_Weighted):
    def __init__(self, like: nn.Conv2d, models: int) -> None:
        super().__init__(like, models)
        if like.padding_mode != "zeros" or isinstance(like.padding, str):
            raise UsageError("a convolution's padding has no stacked form", got=like)
        self.stride, self.padding, self.dilation = like.stride, like.padding, like.dilation
        self.kernel_size, self.groups = like.kernel_size, like.groups
        self.convolution: ConvolutionName = "grouped"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.groups == 1 and x.shape[1] == self.weight.shape[2]
        if self.convolution == "im2col" and self.groups == 1 and not shared:
            return self._by_products(x)
        return F.conv2d(
            x,
            self.weight.flatten(0, 1),
            self._flat_bias(),
            self.stride,
            self.padding,
            self.dilation,
            1 if shared else self.models * self.groups,
        )

    def _by_products(self, x: torch.Tensor) -> torch.Tensor:
        """One matrix product a model: (out, c * k * k) by (c * k * k, n * pixels)."""
        n, _, height, width = x.shape
        apart = torch.unflatten(x, 1, (self.models, -1)).transpose(0, 1).flatten(0, 1)
        columns = F.unfold(apart, self.kernel_size, self.dilation, self.padding, self.stride)
        columns = torch.unflatten(columns, 0, (self.models, n)).transpose(1, 2).flatten(2)
        out = torch.bmm(self.weight.flatten(2), columns)
        if self.bias is not None:
            out = out + self.bias[:, :, None]
        sides = [
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(
                (height, width),
                self.padding,
                self.dilation,
                self.kernel_size,
                self.stride,
                strict=True,
            )
        ]
        return torch.unflatten(out, 2, (n, *sides)).permute(2, 0, 1, 3, 4).flatten(1, 2)


class _BatchNorm2d(_Weighted):
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, like: nn.BatchNorm2d, models: int) -> None:
        super().__init__(like, models)
        if like.momentum is None or like.running_mean is None:
            raise UsageError("a BatchNorm without a moving average has no stacked form", got=like)
        self.momentum, self.eps = like.momentum, like.eps
        for name, buffer in like.named_buffers(recurse=False):
            self.register_buffer(name, buffer.new_zeros(models, *buffer.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.flatten(),
            self._flat_bias(),
            self.training,
            self.momentum,
            self.eps,
        )


class _GroupNorm(_Weighted):
    def __init__(self, like: nn.GroupNorm, models: int) -> None:
        super().__init__(like, models)
        self.num_groups, self.eps = like.num_groups, like.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = self.models * self.num_groups
        return F.group_norm(x, groups, self.weight.flatten(), self._flat_bias(), self.eps)


class _Linear(_Weighted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(G, n, f) to (G, n, out)."""
        if self.bias is None:
            return torch.bmm(x, self.weight.transpose(1, 2))
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))


class _Flatten(nn.Module):
    def __init__(self, like: nn.Flatten, models: int) -> None:
        super().__init__()
        if (like.start_dim, like.end_dim) != (1, -1):
            raise UsageError("a flattening of some dimensions has no stacked form", got=like)
        self.models = models

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, G * c, h, w) to (G, n, c * h * w)."""
        return torch.unflatten(x, 1, (self.models, -1)).flatten(2).transpose(0, 1)


class _Dropout(nn.Module):
    """Each model's mask is the one that `nn.Dropout` would draw for it alone."""

    def __init__(self, like: nn.Dropout, models: int) -> None:
        super().__init__()
        self.p, self.models = like.p, models
        self.generators: list[torch.Generator] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        if len(self.generators) != self.models:
            raise UsageError(
                "dropout needs a generator a model", expected=self.models, got=len(self.generators)
            )
        if x.dim() == 3:
            masks = torch.stack([self._mask(x[0].shape, g) for g in self.generators])
        else:
            n, _, *sides = x.shape
            shape = torch.Size([n, x.shape[1] // self.models, *sides])
            masks = torch.cat([self._mask(shape, g) for g in self.generators], dim=1)
        return x * masks.to(device=x.device, dtype=x.dtype) / (1 - self.p)

    def _mask(self, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
        # Maps are drawn in the order of memory, and training has the channels last.
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        mask = torch.empty(shape, memory_format=layout)
        return mask.bernoulli_(1 - self.p, generator=generator)


class _InputScaling(nn.Module):
    offset: torch.Tensor
    factor: torch.Tensor

    def __init__(self, like: InputScaling, models: int) -> None:
        super().__init__()
        for name, buffer in like.named_buffers():
            self.register_buffer(name, buffer.new_empty(models, *buffer.shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.offset.flatten(0, 1)) * self.factor.flatten(0, 1)


_LAYERS: Final[dict[type[nn.Module], Callable[[Any, int], nn.Module]]] = {
    nn.Conv2d: _Conv2d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.GroupNorm: _GroupNorm,
    nn.Linear: _Linear,
    nn.Flatten: _Flatten,
    nn.Dropout: _Dropout,
    InputScaling: _InputScaling,
}
_ALIKE: Final = {
    *ACTIVATIONS.values(),
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
}
"""Layers that treat each channel, or each number, by itself."""
