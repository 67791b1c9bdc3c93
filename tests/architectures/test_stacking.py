from __future__ import annotations

import pytest
import torch
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.architectures.stacking import CONVOLUTIONS, ConvolutionName, SharedStack, Stack
from litmus.errors import UsageError
from litmus.models import InputSpec
from tests.architectures.variants import Options, every_variant

SPEC = InputSpec(channels=3, height=28, width=28, num_classes=4)


def networks(name: str, options: Options) -> list[nn.Module]:
    architecture = ARCHITECTURES[name](**options)
    return [architecture.build(SPEC, seed=seed).double() for seed in range(3)]


def noisy(module: nn.Module, seed: int) -> nn.Module:
    """Add noise to all weights: some are zero in the beginning, as a spatial transformer's are."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    return module


def images_of(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, *SPEC.image_shape, generator=generator, dtype=torch.float64)


@every_variant
def test_a_stack_does_to_each_network_what_it_does_by_itself(name: str, options: Options) -> None:
    modules = [noisy(module, seed) for seed, module in enumerate(networks(name, options))]
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    stack = Stack(modules, generators=generators).train()
    images = [images_of(seed) for seed in range(3)]
    together = torch.cat(images, dim=1).requires_grad_()
    logits = stack(together)
    logits.square().sum().backward()
    assert together.grad is not None
    for place, (module, batch) in enumerate(zip(modules, images, strict=True)):
        batch = batch.contiguous(memory_format=torch.channels_last).requires_grad_()
        module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        torch.manual_seed(place)
        alone = module(batch)
        alone.square().sum().backward()
        assert torch.allclose(logits[place], alone, atol=1e-9)
        assert batch.grad is not None
        assert torch.allclose(together.grad[:, 3 * place : 3 * place + 3], batch.grad, atol=1e-9)
        state = stack.state_of(place)
        assert state.keys() == module.state_dict().keys()
        for key, tensor in module.state_dict().items():
            assert torch.allclose(state[key], tensor, atol=1e-9), key  # moving averages, too


@every_variant
def test_a_shared_stack_asks_all_networks_the_same_images(name: str, options: Options) -> None:
    """As many networks as an image has channels, which a layer in front must not mix up."""
    modules = [noisy(module, seed).eval() for seed, module in enumerate(networks(name, options))]
    stack = SharedStack(modules)
    together = images_of(0).requires_grad_()
    logits = stack(together)
    logits.square().sum().backward()
    apart = images_of(0).requires_grad_()
    for place, module in enumerate(modules):
        alone = module(apart)
        alone.square().sum().backward()
        assert torch.allclose(logits[place], alone, atol=1e-9)
    assert together.grad is not None
    assert apart.grad is not None
    assert torch.allclose(together.grad, apart.grad, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "wide"),
    [
        ("vgg", {}, True),
        ("lenet5", {}, True),
        ("lenet5", {"input_scaling": "signed"}, False),
        ("mlp", {}, False),
        ("vgg_stn", {}, False),
    ],
)
def test_a_network_that_begins_with_a_convolution_gets_one_wide_one(
    name: str, options: Options, wide: bool
) -> None:
    stack = SharedStack(networks(name, options))
    given: list[int] = []
    stack.network.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0].shape[1]))
    stack(images_of(0))
    assert given == [3 if wide else 9]


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_a_convolution_is_the_same_however_it_is_computed(convolution: ConvolutionName) -> None:
    modules: list[nn.Module] = [
        nn.Conv2d(2, 5, (3, 2), 2, (1, 0), bias=True).double() for _ in range(3)
    ]
    x = torch.rand(4, 6, 9, 8, dtype=torch.float64)
    out = Stack(modules, convolution=convolution)(x)
    alone = [m(part) for m, part in zip(modules, torch.split(x, 2, dim=1), strict=True)]
    assert torch.allclose(out, torch.cat(alone, dim=1))


class Odd(nn.Module):
    """A layer that nobody has told how to stack."""


def test_what_cannot_be_stacked_is_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(3, 2), Odd()))
    with pytest.raises(UsageError, match=r"no stacked form .*got 1\.1: Odd"):
        Stack([network])
    with pytest.raises(UsageError, match="different architectures"):
        Stack([nn.Linear(3, 2), nn.Linear(3, 4)])
