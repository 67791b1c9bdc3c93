from __future__ import annotations

import pytest
import torch

from litmus.attacks.places import PLACES

HEIGHT, WIDTH, SIZE = 32, 20, 5


def drawn(place: str, n: int = 2000, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return PLACES[place](n, HEIGHT, WIDTH, size, generator)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [1, 5, 20])
def test_a_patch_lies_inside_the_image_at_a_place_of_its_own(place: str, size: int) -> None:
    corners = drawn(place, size=size)
    assert corners.shape == (2000, 2)
    assert corners.dtype == torch.int64
    assert (corners >= 0).all()
    assert (corners <= torch.tensor([HEIGHT - size, WIDTH - size])).all()
    assert len(torch.unique(corners, dim=0)) > 1
    assert torch.equal(corners, drawn(place, size=size))
    assert not torch.equal(corners, drawn(place, size=size, seed=1))


def test_all_four_corners_are_used_alike() -> None:
    corners, counts = torch.unique(drawn("corner"), dim=0, return_counts=True)
    assert corners.tolist() == [[0, 0], [0, 15], [27, 0], [27, 15]]
    assert counts.min() > 430


def test_anywhere_is_everywhere() -> None:
    corners = drawn("anywhere", n=20_000)
    assert len(torch.unique(corners, dim=0)) == (HEIGHT - SIZE + 1) * (WIDTH - SIZE + 1)


def test_the_surface_is_a_disc_in_the_middle() -> None:
    centres = drawn("surface") + SIZE / 2
    offset = (centres - torch.tensor([HEIGHT / 2, WIDTH / 2])) / torch.tensor([HEIGHT, WIDTH])
    # 0.22 of the side, and half a pixel's rounding.
    assert offset.norm(dim=1).max() < 0.22 + 0.5 / WIDTH * 2**0.5
    assert offset.mean(dim=0).abs().max() < 0.02
    # Uniform on the disc: half of it lies within 1 / sqrt(2) of the radius.
    assert (offset.norm(dim=1) < 0.22 / 2**0.5).float().mean() == pytest.approx(0.5, abs=0.06)
