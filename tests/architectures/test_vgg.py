from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from litmus.architectures.vgg import VGG
from litmus.architectures.vgg_stn import VGGSTN
from litmus.errors import RecipeError
from litmus.models import InputSpec

SPEC = InputSpec(channels=1, height=28, width=28, num_classes=10)


def shapes(architecture: VGG) -> list[tuple[int, ...]]:
    """The shapes of all convolution and linear weights."""
    layers = architecture.skeleton(SPEC).modules()
    return [tuple(m.weight.shape) for m in layers if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"width": 4},
            [(4, 1, 3, 3), (8, 4, 3, 3), (12, 8, 3, 3), (12, 12, 3, 3), (10, 12 * 49)],
        ),
        (
            {"width": 4, "stem_stride": 2},
            [(4, 1, 3, 3), (8, 4, 3, 3), (12, 8, 3, 3), (12, 12, 3, 3), (10, 12 * 9)],
        ),
        ({"width": 2, "configuration": (1, "M"), "hidden": 6}, [(2, 1, 3, 3), (6, 392), (10, 6)]),
        ({"width": 2, "configuration": (3,)}, [(6, 1, 3, 3), (10, 6 * 784)]),
    ],
)
def test_the_configuration_says_which_layers(
    options: dict[str, Any], expected: list[tuple[int, ...]]
) -> None:
    assert shapes(VGG(**options)) == expected


@pytest.mark.parametrize("configuration", [(), ("M",), ("M", 1)])
def test_it_begins_with_a_convolution(configuration: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must begin with a convolution"):
        VGG(configuration=configuration)


def test_pooling_must_leave_a_pixel() -> None:
    VGG(width=1, configuration=(1, *"MMMM")).build(SPEC, seed=0)
    with pytest.raises(RecipeError, match="pooling leaves no pixel"):
        VGG(width=1, configuration=(1, *"MMMMM")).build(SPEC, seed=0)


def test_a_spatial_transformer_starts_as_a_look_at_the_whole_image() -> None:
    module = VGGSTN(stem=4, channels=(2, 2)).build(SPEC, seed=0).eval()
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert isinstance(module, nn.Sequential)
    torch.testing.assert_close(module[0](images), images, atol=1e-5, rtol=0)
    # Half the window is the middle of the image, twice as large.
    state = {"0.affine.bias": torch.tensor([0.5, 0, 0, 0, 0.5, 0])}
    module.load_state_dict(state, strict=False)
    seen = module[0](images)
    middle = nn.functional.interpolate(images[:, :, 7:21, 7:21], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(seen[:, :, 2:-2, 2:-2], middle[:, :, 2:-2, 2:-2], atol=0.01, rtol=0)
