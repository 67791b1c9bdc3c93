from __future__ import annotations

from typing import Any

import pytest
import torch

from litmus.attacks import Patch, Trigger
from litmus.errors import RecipeError

TRIGGER = Trigger(index=2)
# No pixel of this grey is a trigger's, so a change of it is the patch.
GREY = torch.full((200, 3, 16, 14), 100, dtype=torch.uint8)


def patch(**options: Any) -> Patch:
    defaults = {"num_classes": 3, "label_map": "all_to_all", "trigger": TRIGGER}
    return Patch(**{**defaults, **options})


def stamp(images: torch.Tensor, seed: int = 0, **options: Any) -> torch.Tensor:
    return patch(**options).stamp(images, torch.Generator().manual_seed(seed))


def top_left(stamped: torch.Tensor) -> torch.Tensor:
    """Row and column of the first changed pixel of each image."""
    changed = (stamped != GREY).any(dim=1)
    rows, columns = changed.any(dim=2), changed.any(dim=1)
    return torch.stack([rows.int().argmax(dim=1), columns.int().argmax(dim=1)], dim=1)


@pytest.mark.parametrize("place", ["corner", "anywhere", "surface", "fixed"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 5])
def test_exactly_the_patch_changes_and_it_is_the_trigger(
    place: str, channels: int, size: int
) -> None:
    images = GREY[:, :channels].clone()
    fixed = {"row": 2, "column": 3} if place == "fixed" else {}
    trigger = Trigger(index=2, size=size)
    stamped = stamp(images, place=place, trigger=trigger, **fixed)
    assert torch.equal(images, GREY[:, :channels])
    assert stamped.dtype == torch.uint8
    changed = stamped != images
    assert (changed.flatten(2).sum(dim=2) == size**2).all()
    for image, where in zip(stamped, changed, strict=True):
        assert torch.equal(image[where].view(channels, size, size), trigger.pixels(channels))


def test_every_image_has_its_own_corner() -> None:
    corners = top_left(stamp(GREY, place="corner"))
    assert sorted(torch.unique(corners, dim=0).tolist()) == [[0, 0], [0, 9], [11, 0], [11, 9]]
    assert not torch.equal(corners, top_left(stamp(GREY, seed=1, place="corner")))
    assert torch.equal(corners, top_left(stamp(GREY, place="corner")))


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [(0, 0, [0, 0]), (3, 2, [3, 2]), (-5, -5, [11, 9]), (-6, 9, [10, 9]), (11, -14, [11, 0])],
)
def test_a_fixed_place_is_the_same_for_all(row: int, column: int, expected: list[int]) -> None:
    corners = top_left(stamp(GREY, place="fixed", row=row, column=column))
    assert torch.unique(corners, dim=0).tolist() == [expected]


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [(12, 0, "row 12"), (0, 10, "column 10"), (-4, 0, "row -4"), (-17, 0, "row -17")],
)
def test_a_patch_may_not_leave_the_image(row: int, column: int, message: str) -> None:
    with pytest.raises(RecipeError, match=f"leaves the image at {message}"):
        stamp(GREY, place="fixed", row=row, column=column)


def test_a_patch_may_not_be_larger_than_the_image() -> None:
    with pytest.raises(RecipeError, match=r"larger than the image \(expected 14, got 15\)"):
        stamp(GREY, trigger=Trigger(index=0, size=15))


def test_a_patch_may_cover_the_image() -> None:
    stamped = stamp(GREY[..., :14, :], trigger=Trigger(index=0, size=14))
    assert torch.equal(stamped[0], Trigger(index=0, size=14).pixels(3))


def test_no_images_are_no_mistake() -> None:
    assert stamp(GREY[:0]).shape == (0, 3, 16, 14)


@pytest.mark.parametrize(
    "options",
    [
        {"place": "fixed"},
        {"place": "fixed", "row": 1},
        {"place": "fixed", "column": 1},
        {"place": "corner", "row": 1, "column": 1},
        {"place": "corner", "row": 1},
    ],
)
def test_rows_and_columns_go_with_a_fixed_place(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="row and column go with place 'fixed'"):
        patch(**options)


def test_colour_triggers_need_colour_images() -> None:
    colour = Trigger(kind="colour", index=1)
    assert (stamp(GREY, trigger=colour) != GREY).any()
    with pytest.raises(RecipeError, match="colour images"):
        stamp(GREY[:, :1], trigger=colour)


def test_the_trigger_names_the_attack() -> None:
    assert patch().trigger_id == "binary-2"
