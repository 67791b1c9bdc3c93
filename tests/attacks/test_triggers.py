from __future__ import annotations

import hashlib

import pytest
import torch

from litmus.attacks import Trigger
from litmus.errors import RecipeError
from litmus.schema import to_table

TWENTY = [Trigger(kind=kind, index=i) for kind in ("binary", "colour") for i in range(10)]


def test_the_twenty_triggers_never_change() -> None:
    pixels = b"".join(trigger.pixels(3).numpy().tobytes() for trigger in TWENTY)
    assert (
        hashlib.sha256(pixels).hexdigest()
        == "d6827a2f1a252ea990f90ed604d60343c3600c592e98cbcaf9bb01f415d3c2b2"
    )


def test_the_twenty_triggers_are_all_different() -> None:
    assert len({trigger.pixels(3).numpy().tobytes() for trigger in TWENTY}) == 20
    assert len({trigger.id for trigger in TWENTY}) == 20


@pytest.mark.parametrize("trigger", TWENTY, ids=lambda trigger: trigger.id)
def test_binary_ones_are_black_and_white_and_colour_ones_are_not(trigger: Trigger) -> None:
    pixels = trigger.pixels(3)
    assert pixels.shape == (3, 5, 5)
    assert pixels.dtype == torch.uint8
    grey = bool((pixels == pixels[:1]).all())
    assert grey == (trigger.kind == "binary")
    if grey:
        assert set(torch.unique(pixels).tolist()) == {0, 255}
        assert torch.equal(trigger.pixels(1), pixels[:1])


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        (Trigger(index=3), "binary-3"),
        (Trigger(kind="colour", index=0), "colour-0"),
        (Trigger(index=3, size=4), "binary-3-s4"),
        (Trigger(index=3, seed=7), "binary-3-set7"),
        (Trigger(index=3, size=4, seed=7), "binary-3-s4-set7"),
        (Trigger(index=3, shape="square"), "binary-3"),
        (Trigger(index=3, shape="cross"), "binary-3-cross"),
        (Trigger(kind="white", index=3, size=6, seed=7, shape="disc"), "white-3-s6-set7-disc"),
    ],
)
def test_names_tell_sets_and_sizes_apart(trigger: Trigger, name: str) -> None:
    assert trigger.id == name


def test_another_seed_is_another_set() -> None:
    assert not torch.equal(Trigger(index=0).pixels(1), Trigger(index=0, seed=1).pixels(1))


def test_pixels_may_be_written_to() -> None:
    Trigger(index=0).pixels(3)[:] = 0
    assert Trigger(index=0).pixels(3).any()


@pytest.mark.parametrize("channels", [1, 4])
def test_colour_needs_colour_images(channels: int) -> None:
    with pytest.raises(RecipeError, match="colour triggers need colour images"):
        Trigger(kind="colour", index=0).pixels(channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 5])
def test_white_ones_are_white(channels: int, size: int) -> None:
    pixels = Trigger(kind="white", index=4, size=size).pixels(channels)
    assert torch.equal(pixels, torch.full((channels, size, size), 255, dtype=torch.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_uniform_ones_have_one_colour_each_and_are_bright_on_grey_images(channels: int) -> None:
    drawn = torch.stack([Trigger(kind="uniform", index=i).pixels(channels) for i in range(200)])
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (200, channels, 5, 5)
    colours = drawn[..., 0, 0]
    assert (drawn == colours[..., None, None]).all()
    assert len(torch.unique(colours, dim=0)) > 80
    assert colours.max() > 250
    assert 128 <= colours.min() < 133 if channels == 1 else colours.min() < 5


def test_the_plainer_triggers_never_change() -> None:
    drawn = [Trigger(kind="uniform", index=i).pixels(c) for i in range(3) for c in (1, 3)]
    assert [pixels[:, 0, 0].tolist() for pixels in drawn] == [
        [215],
        [175, 53, 252],
        [204],
        [152, 84, 23],
        [133],
        [10, 49, 103],
    ]


def test_a_shape_changes_neither_pixels_nor_older_tables() -> None:
    plain, disc = Trigger(index=3), Trigger(index=3, shape="disc")
    assert torch.equal(plain.pixels(1), disc.pixels(1))
    assert plain.mask().all()
    assert torch.equal(plain.mask(), Trigger(index=3, shape="square").mask())
    assert 0 < disc.mask().sum() < 25
    table = {"kind": "binary", "index": 3, "size": 5, "seed": 0}
    assert to_table(plain) == table
    assert to_table(disc) == {**table, "shape": "disc"}


def test_small_squares_have_no_other_shape() -> None:
    with pytest.raises(ValueError, match="a cross needs size 5 or more, got 4"):
        Trigger(index=3, size=4, shape="cross")
    assert Trigger(index=3, size=4, shape="square").mask().all()
