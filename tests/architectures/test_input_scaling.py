from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.architectures.input_scaling import InputScaling, Scaling
from litmus.architectures.vgg_stn import VGGSTN
from litmus.architectures.vgg_whitened import VGGWhitened
from litmus.formats.zoo_file import module_from, saved_weights
from litmus.models import InputSpec
from litmus.schema import to_table
from tests.architectures.variants import every

SPEC = InputSpec(channels=3, height=32, width=32, num_classes=5)
scalings = pytest.mark.parametrize("scaling", get_args(Scaling))


def training_images(n: int = 60) -> torch.Tensor:
    """Smooth noise, each channel with a mean and a deviation of its own."""
    generator = torch.Generator().manual_seed(0)
    noise = F.avg_pool2d(torch.rand(n, 3, 34, 34, generator=generator), 3, 1)
    levels = noise * torch.tensor([250.0, 120, 40]).view(3, 1, 1)
    return levels.to(torch.uint8)


def initialised(name: str, scaling: Scaling | Literal["none"] | None) -> nn.Module:
    architecture = ARCHITECTURES[name](input_scaling=scaling)
    module = architecture.build(SPEC, seed=3)
    architecture.initialise(module, training_images())
    return module.eval()


def scaled(images: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """What the networks should see of images in [0, 1]."""
    if scaling == "standard":
        pixels = training_images().double() / 255
        mean, deviation = (f(pixels, dim=(0, 2, 3)) for f in (torch.mean, torch.std))
        return ((images - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)).float()
    return images * 255 if scaling == "bytes" else images * 2 - 1


@every
@scalings
def test_the_network_sees_scaled_images(name: str, scaling: Scaling) -> None:
    module = initialised(name, scaling)
    assert isinstance(module, nn.Sequential)
    images = training_images(4).float() / 255
    expected = module[1](scaled(images, scaling))
    torch.testing.assert_close(module(images), expected, rtol=1e-3, atol=1e-3)


@every
@scalings
def test_the_weights_are_drawn_as_without_scaling(name: str, scaling: Scaling) -> None:
    plain = ARCHITECTURES[name]().build(SPEC, seed=3)
    module = ARCHITECTURES[name](input_scaling=scaling).build(SPEC, seed=3)
    assert isinstance(module, nn.Sequential)
    expected, found = plain.state_dict(), module[1].state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@every
@pytest.mark.parametrize("scaling", [None, "none"])
def test_without_scaling_there_is_no_layer_and_no_entry(
    name: str, scaling: Literal["none"] | None
) -> None:
    module = initialised(name, scaling)
    assert not any(isinstance(layer, InputScaling) for layer in module.modules())
    assert "input_scaling" not in to_table(ARCHITECTURES[name]())


@scalings
def test_a_zoo_file_holds_the_scaling(scaling: Scaling) -> None:
    module = initialised("resnet", scaling)
    spec = {
        "architecture": {"name": "resnet", "input_scaling": scaling},
        "input_spec": SPEC.to_json(),
    }
    images = training_images(4).float() / 255
    again = module_from(spec, saved_weights(module))
    assert torch.equal(again(images), module(images))


def test_standard_takes_mean_and_deviation_of_each_channel_out() -> None:
    scaling = InputScaling("standard", 3)
    images = training_images()
    before = images.float() / 255
    assert torch.equal(scaling(before), before)
    scaling.fit(images)
    seen = scaling(before)
    torch.testing.assert_close(seen.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    assert not list(scaling.parameters())


def test_a_channel_that_never_changes_stays_finite() -> None:
    scaling = InputScaling("standard", 1)
    images = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    scaling.fit(images)
    np.testing.assert_allclose(scaling(images.float() / 255).numpy(), 0, atol=1e-4)


@scalings
@pytest.mark.parametrize("behind_transformer", [False, True])
def test_whitening_is_of_what_the_stem_sees(scaling: Scaling, behind_transformer: bool) -> None:
    cls = VGGSTN if behind_transformer else VGGWhitened
    architecture = cls(stem=8, channels=(4,), input_scaling=scaling)
    module = architecture.build(SPEC, seed=0)
    images = training_images()
    architecture.initialise(module, images)
    stem = next(
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d) and not layer.weight.requires_grad
    )
    patches = F.unfold(scaled(images.float() / 255, scaling), 4, stride=4)
    rows = patches.transpose(1, 2).flatten(0, 1)
    answers = (rows - rows.mean(dim=0)) @ stem.weight.flatten(1).T
    covariance = torch.cov(answers[:, :4].T)
    torch.testing.assert_close(covariance, torch.eye(4), atol=0.05, rtol=0)
