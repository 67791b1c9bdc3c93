from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from litmus.attacks import Patch, Trigger
from litmus.attacks.places import PLACES
from litmus.errors import RecipeError
from litmus.schema import to_table

TRIGGER = Trigger(index=2)
# No pixel of this grey is a trigger's, so a change of it is the patch.
GREY = torch.full((200, 3, 16, 14), 100, dtype=torch.uint8)


def patch(**options: Any) -> Patch:
    defaults = {"num_classes": 3, "label_map": "all_to_all", "trigger": TRIGGER}
    return Patch(**{**defaults, **options})


def stamp(images: torch.Tensor, seed: int = 0, **options: Any) -> torch.Tensor:
    return patch(**options).stamp(images, torch.Generator().manual_seed(seed))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


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
    assert patch(place="fixed").trigger_id == "binary-2"
    assert patch(alpha=0.25).trigger_id == "binary-2-a0.25"
    many = patch(others=(Trigger(index=4, shape="disc"), Trigger(index=1, kind="white")), alpha=0.5)
    assert many.trigger_id == "binary-2+binary-4-disc+white-1-a0.5"


def test_tables_and_pixels_from_before_the_newer_options_stay_the_same() -> None:
    """Ids of models are hashes of such tables."""
    assert to_table(patch(place="fixed", row=1, column=-6)) == {
        "num_classes": 3,
        "label_map": "all_to_all",
        "poison_ratio": 0.5,
        "trigger": {"kind": "binary", "index": 2, "size": 5, "seed": 0},
        "place": "fixed",
        "row": 1,
        "column": -6,
    }
    many = patch(others=(Trigger(index=4), Trigger(index=5, shape="disc")))
    shapes = [trigger.get("shape") for trigger in to_table(many)["others"]]
    assert shapes == [None, "disc"]
    assert "shape" not in to_table(many)["others"][0]
    images = torch.randint(0, 256, (50, 1, 28, 28), generator=seeded(), dtype=torch.uint8)
    digest = hashlib.sha256()
    for place in PLACES:
        generator = seeded()
        digest.update(patch(place=place).stamp(images, generator).numpy().tobytes())
        digest.update(generator.get_state().numpy().tobytes())
    assert digest.hexdigest()[:16] == "a02bd031930e51f5"


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
def test_alpha_blends_what_the_patch_covers(alpha: float) -> None:
    images = torch.randint(0, 256, (200, 3, 16, 14), generator=seeded(), dtype=torch.uint8)
    trigger = Trigger(kind="colour", index=1)
    opaque, faint = (stamp(images, trigger=trigger, alpha=a) for a in (None, alpha))
    blended = images.double() * (1 - alpha) + opaque.double() * alpha
    assert (faint - blended).abs().max() <= 0.5 + 1e-4
    assert torch.equal(faint[opaque == images], images[opaque == images])


@pytest.mark.parametrize("shape", ["cross", "disc", "triangle", "frame"])
@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_outside_of_its_shape_a_trigger_leaves_the_image_alone(
    shape: str, size: int, alpha: float | None
) -> None:
    trigger = Trigger(index=2, size=size, shape=shape)  # type: ignore[arg-type]
    stamped = stamp(GREY, trigger=trigger, place="fixed", row=3, column=4, alpha=alpha)
    changed = (stamped != GREY).all(dim=1)
    assert torch.equal(changed, (stamped != GREY).any(dim=1))
    assert torch.equal(changed[7, 3 : 3 + size, 4 : 4 + size], trigger.mask())
    assert (changed.flatten(1).sum(dim=1) == trigger.mask().sum()).all()
    if alpha is None:
        mask = trigger.mask()
        inside = stamped[7, :, 3 : 3 + size, 4 : 4 + size][:, mask]
        assert torch.equal(inside, trigger.pixels(3)[:, mask])


def test_without_row_and_column_the_trigger_draws_one_place_for_all() -> None:
    places = []
    for index in range(40):
        trigger = Trigger(kind="white", index=index)
        corners = top_left(stamp(GREY, trigger=trigger, place="fixed"))
        again = top_left(stamp(GREY, seed=1, trigger=trigger, place="fixed"))
        assert torch.equal(corners, again)
        places += torch.unique(corners, dim=0).tolist()
    assert len(places) == 40
    assert len({tuple(place) for place in places}) > 25
    assert {row for row, _ in places} == set(range(12))
    assert {column for _, column in places} == set(range(10))


@pytest.mark.parametrize("place", ["corner", "anywhere", "surface", "fixed"])
def test_a_drawn_place_is_inside_where_there_is_but_one(place: str) -> None:
    assert stamp(GREY, trigger=Trigger(index=0, size=14), place=place).shape == GREY.shape


def test_each_image_gets_one_of_the_triggers() -> None:
    others = (Trigger(index=0), Trigger(kind="white", index=0, shape="cross"))
    images = GREY.repeat(5, 1, 1, 1)
    fixed: dict[str, Any] = {"place": "fixed", "row": 2, "column": 3, "others": others}
    stamped = stamp(images, **fixed)
    assert torch.equal(stamped, stamp(images, **fixed))
    assert not torch.equal(stamped, stamp(images, seed=1, **fixed))
    counts = []
    for trigger in (TRIGGER, *others):
        alone = stamp(images[:1], trigger=trigger, place="fixed", row=2, column=3)
        counts.append(int((stamped == alone).flatten(1).all(dim=1).sum()))
    assert sum(counts) == len(images)
    assert min(counts) > 270
    # The places are those that the main trigger has by itself.
    white = (Trigger(kind="white", index=0),)
    for place in PLACES:
        one, two = (
            stamp(GREY, trigger=Trigger(kind="white", index=1), place=place, others=others)
            for others in (None, white)
        )
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"others": (Trigger(index=1, size=4),)}, r"must have one size, got \[4, 5\]"),
        ({"others": (Trigger(index=2, shape="square"),)}, "must differ, got binary-2, binary-2"),
        ({"others": ()}, "at least 1 item"),
        ({"alpha": 1.1}, "less than or equal to 1"),
        ({"alpha": 0.0}, "greater than 0"),
    ],
)
def test_impossible_patches_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch(**options)
