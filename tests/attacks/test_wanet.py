from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from litmus.attacks import WaNet
from litmus.shake import drawn_numbers


def wanet(**options: Any) -> WaNet:
    return WaNet(**{"num_classes": 3, "label_map": "all_to_all", "index": 0, **options})


def stamp(images: torch.Tensor, **options: Any) -> torch.Tensor:
    return wanet(**options).stamp(images, torch.Generator())


def displacement(height: int, width: int, **options: Any) -> torch.Tensor:
    """How far each pixel is taken from, in pixels: (h, w, 2), across and down."""
    none = wanet(strength=1e-9).sources(height, width)
    sides = torch.tensor([width - 1, height - 1]) / 2
    return (wanet(**options).sources(height, width) - none) * sides


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_image_stays_as_it_is(level: int) -> None:
    images = torch.full((3, 3, 28, 20), level, dtype=torch.uint8)
    assert torch.equal(stamp(images, strength=3.0), images)


def test_a_warp_moves_pixels_by_its_field() -> None:
    # On a ramp of 6 levels a pixel, what a pixel gains is six times how far right its source is.
    ramp = (torch.arange(32) * 6).to(torch.uint8).expand(1, 1, 32, 32)
    for strength in (0.5, 2.0):
        gained = (stamp(ramp, strength=strength).double() - ramp)[0, 0]
        moved = displacement(32, 32, strength=strength)[..., 0]
        assert (gained - 6 * moved).abs().max() < 0.51
        assert gained.abs().max() > 1
    upright = ramp.transpose(2, 3)
    gained = (stamp(upright).double() - upright)[0, 0]
    assert (gained - 6 * displacement(32, 32)[..., 1]).abs().max() < 0.51


@pytest.mark.parametrize("side", [28, 32, 64, 224])
@pytest.mark.parametrize("grid", [4, 8])
def test_strength_is_about_twice_the_mean_displacement_in_pixels(side: int, grid: int) -> None:
    means = torch.stack(
        [displacement(side, side, index=i, grid=grid).abs().mean() for i in range(20)]
    )
    # Control points have 0.25; between them displacements level out, at the edges they are cut.
    assert 0.12 < means.mean() < 0.25
    double = displacement(side, side, strength=1.0, grid=grid).abs().mean()
    assert double == pytest.approx(2 * float(displacement(side, side, grid=grid).abs().mean()), 0.1)


def test_the_field_is_that_of_the_authors_code() -> None:
    """From github.com/VinAIResearch/Warping-based_Backdoor_Attack-release, train.py."""
    attack, side = wanet(index=2), 28
    drawn = torch.from_numpy(drawn_numbers(attack.stream, 32)).reshape(1, 2, 4, 4).float()
    ins = drawn * 2 - 1
    ins = ins / torch.mean(torch.abs(ins))
    noise_grid = F.interpolate(ins, size=side, mode="bicubic", align_corners=True)
    noise_grid = noise_grid.permute(0, 2, 3, 1)
    array1d = torch.linspace(-1, 1, steps=side)
    x, y = torch.meshgrid(array1d, array1d, indexing="ij")
    identity_grid = torch.stack((y, x), 2)[None, ...]
    grid_temps = torch.clamp(identity_grid + 0.5 * noise_grid / side, -1, 1)
    assert torch.allclose(attack.sources(side, side), grid_temps[0], atol=1e-6)


def test_sources_stay_inside_the_image() -> None:
    sources = wanet(strength=50.0).sources(28, 20)
    assert sources.shape == (28, 20, 2)
    assert sources.abs().max() == 1


@pytest.mark.parametrize("options", [{"index": -1}, {"grid": 1}, {"grid": 65}, {"strength": 0.0}])
def test_impossible_warps_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater than|less than"):
        wanet(**options)
