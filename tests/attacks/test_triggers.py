from __future__ import annotations

import hashlib

import pytest
import torch

from litmus.attacks import Trigger
from litmus.errors import RecipeError

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
