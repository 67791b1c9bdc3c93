from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litmus.architectures import fold_batch_norm
from litmus.architectures.vgg_stn import VGGSTN
from litmus.architectures.vgg_whitened import VGGWhitened
from litmus.errors import RecipeError
from litmus.models import InputSpec

SPEC = InputSpec(channels=3, height=32, width=32, num_classes=5)


def correlated_images(n: int) -> torch.Tensor:
    """Noise smoothed over neighbours and mixed over channels, as photographs are."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(n, 3, 32, 32, generator=generator)
    smooth = F.avg_pool2d(noise, 3, 1, 1) + 0.5 * noise.mean(dim=1, keepdim=True)
    return (smooth / smooth.amax() * 255).to(torch.uint8)


def stem_of(module: nn.Module) -> nn.Conv2d:
    return next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))


def test_the_stem_whitens_patches_of_the_training_images() -> None:
    architecture = VGGWhitened(stem=16, channels=(4,))
    module = architecture.build(SPEC, seed=0)
    images = correlated_images(300)
    architecture.initialise(module, images)
    stem = stem_of(module)
    patches = F.unfold(images.float() / 255, 4, stride=4).transpose(1, 2).flatten(0, 1)
    answers = (patches - patches.mean(dim=0)) @ stem.weight.detach().flatten(1).T
    covariance = torch.cov(answers[:, :8].T)
    torch.testing.assert_close(covariance, torch.eye(8), atol=0.05, rtol=0)
    torch.testing.assert_close(answers[:, 8:], -answers[:, :8])


def test_leading_components_come_first() -> None:
    images = correlated_images(300)
    weights = []
    for stem in (4, 16):
        architecture = VGGWhitened(stem=stem, channels=(4,))
        module = architecture.build(SPEC, seed=0)
        architecture.initialise(module, images)
        weights.append(stem_of(module).weight)
    torch.testing.assert_close(weights[0][:2], weights[1][:2])


def test_the_stem_is_not_trained_and_other_layers_are() -> None:
    module = VGGWhitened(stem=4, channels=(2, 2)).build(SPEC, seed=0)
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {"0.weight"}


def test_behind_a_spatial_transformer_the_stem_whitens_too() -> None:
    images = correlated_images(100)
    plain, behind = VGGWhitened(stem=4, channels=(2,)), VGGSTN(stem=4, channels=(2,))
    module, other = plain.build(SPEC, seed=0), behind.build(SPEC, seed=0)
    plain.initialise(module, images)
    behind.initialise(other, images)
    assert isinstance(other, nn.Sequential)
    torch.testing.assert_close(stem_of(other[1]).weight, stem_of(module).weight)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"more stem channels .* \(expected at most 96, got 98\)"):
        VGGWhitened(stem=98).build(SPEC, seed=0)
    with pytest.raises(RecipeError, match="pooling leaves no pixel"):
        VGGWhitened(stem=4, channels=(2,) * 5).build(SPEC, seed=0)


@pytest.mark.parametrize("negative", [False, True])
def test_folding_through_a_pooling_keeps_the_function(negative: bool) -> None:
    module = VGGWhitened(stem=4, channels=(3, 3)).build(SPEC, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(torch.randn(3, generator=generator))
            layer.running_var.copy_(torch.rand(3, generator=generator) + 0.5)
            layer.weight.data.copy_(torch.rand(3, generator=generator) + 0.5)
            layer.bias.data.copy_(torch.randn(3, generator=generator))
            if negative:
                layer.weight.data[1] *= -1
    images = torch.rand(4, 3, 32, 32, generator=generator)
    module.eval()
    with torch.inference_mode():
        before = module(images)
        folded = fold_batch_norm(module)
        torch.testing.assert_close(folded(images), before, atol=1e-5, rtol=1e-5)
    left = sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    # The largest value does not stay the largest under a negative factor.
    assert left == (2 if negative else 0)
