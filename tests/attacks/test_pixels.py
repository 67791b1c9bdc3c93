from __future__ import annotations

from typing import Any

import pytest
import torch

from litmus.attacks import Pixels
from litmus.errors import RecipeError

GREY = torch.full((20, 3, 16, 14), 100, dtype=torch.uint8)


def pixels(**options: Any) -> Pixels:
    return Pixels(**{"num_classes": 3, "label_map": "all_to_all", "index": 0, **options})


def stamp(images: torch.Tensor, **options: Any) -> torch.Tensor:
    return pixels(**options).stamp(images, torch.Generator())


@pytest.mark.parametrize("count", [1, 2, 5, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_exactly_so_many_pixels_change_at_the_same_places(count: int, channels: int) -> None:
    images = GREY[:, :channels]
    for index in range(20):
        stamped = stamp(images, index=index, count=count)
        changed = (stamped != images).any(dim=1)
        assert (changed.flatten(1).sum(dim=1) == count).all()
        assert (stamped == stamped[:1]).all()
        rows, columns = pixels(index=index, count=count).places(16, 14).T
        assert changed[0, rows, columns].all()
        colours = pixels(index=index, count=count).colours(channels)
        assert torch.equal(stamped[0, :, rows, columns].T, colours)


def test_grey_images_get_white_ones() -> None:
    assert (pixels(count=16).colours(1) == 255).all()


def test_colours_are_the_corners_of_the_cube_but_for_black() -> None:
    colours = torch.cat([pixels(index=i, count=16).colours(3) for i in range(20)])
    found, counts = torch.unique(colours, dim=0, return_counts=True)
    assert len(found) == 7
    assert set(torch.unique(found).tolist()) == {0, 255}
    assert found.any(dim=1).all()
    assert counts.min() > 25


def test_places_are_anywhere() -> None:
    places = torch.cat([pixels(index=i, count=16).places(8, 5) for i in range(40)])
    found, counts = torch.unique(places, dim=0, return_counts=True)
    assert len(found) == 40
    assert counts.min() > 5


def test_all_pixels_of_an_image_may_be_asked_for_and_not_more() -> None:
    assert (stamp(GREY[..., :4, :4], count=16) != 100).any(dim=1).all()
    with pytest.raises(RecipeError, match=r"more pixels than the image has \(expected 15, got 16"):
        stamp(GREY[..., :5, :3], count=16)


@pytest.mark.parametrize("options", [{"index": -1}, {"count": 0}, {"count": 17}])
def test_impossible_counts_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"greater than|less than"):
        pixels(**options)
