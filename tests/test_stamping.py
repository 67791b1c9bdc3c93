from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litmus.stamping import FAMILIES, Stamp, stamp_bank, stamped

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 9, 14), (1, 2, 2)]
COUNTS = dict.fromkeys(FAMILIES, 12)


def grey(shape: tuple[int, int, int], level: float = 0.3) -> Any:
    return np.full((1, *shape), level, dtype=np.float32)


def difference(stamp: Stamp, shape: tuple[int, int, int]) -> Any:
    """What a stamp does to a grey image, (c, h, w)."""
    return (stamp.on(grey(shape)) - grey(shape))[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stamp_fits_its_images_and_changes_them(shape: tuple[int, int, int]) -> None:
    for stamp in stamp_bank(shape, COUNTS):
        images = stamp.on(np.concatenate([grey(shape), grey(shape, 1.0)]))
        assert images.shape == (2, *shape)
        assert images.dtype == np.float32
        assert 0 <= images.min() <= images.max() <= 1
        assert np.abs(difference(stamp, shape)).max() > 0.01


def test_patches_and_pixels_are_small_and_what_is_blended_in_or_added_is_faint() -> None:
    shape = (3, 32, 32)
    for stamp in stamp_bank(shape, COUNTS):
        changed = np.abs(difference(stamp, shape)).max(axis=0)
        touched = int((stamp.keep[0] != 1).sum()) if stamp.keep.size > 1 else 32 * 32
        if stamp.family in ("uniform", "binary"):
            rows, columns = np.nonzero(stamp.keep[0] == 0)
            side = np.ptp(rows) + 1
            assert 2 <= side <= 0.28 * 32 + 0.5
            assert touched == side**2 == (np.ptp(columns) + 1) ** 2
        elif stamp.family == "pixels":
            assert 1 <= touched <= 8
        else:
            assert changed.max() <= 0.4
            assert (changed > 0.005).mean() > 0.2


def test_places_sizes_and_colours_differ() -> None:
    bank = stamp_bank((3, 32, 32), {"uniform": 30})
    places = {tuple(np.argwhere(stamp.keep[0] == 0)[0]) for stamp in bank}
    colours = {tuple(stamp.add[:, stamp.keep[0] == 0][:, 0]) for stamp in bank}
    assert len(places) > 25
    assert (1.0, 1.0, 1.0) in colours
    assert len(colours) > 3


def test_more_stamps_begin_with_the_same_and_other_families_draw_nothing_from_them() -> None:
    shape = (1, 12, 12)
    few = stamp_bank(shape, {"wave": 3, "binary": 2})
    many = stamp_bank(shape, {"binary": 5, "noise": 1, "wave": 4})
    for family in ("wave", "binary"):
        pairs = zip(
            [s for s in few if s.family == family],
            [s for s in many if s.family == family],
            strict=False,
        )
        for first, second in pairs:
            np.testing.assert_array_equal(first.on(grey(shape)), second.on(grey(shape)))


def test_batches_have_every_stamp_on_every_image_in_order() -> None:
    shape = (1, 6, 7)
    bank = stamp_bank(shape, {"binary": 3, "wave": 2})
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    for most in (1, 4, 100):
        batches = list(stamped(bank, images, most=most))
        assert all(len(batch) <= max(most, 2) for batch in batches)
        whole = np.concatenate(batches)
        assert len(whole) == 10
        for i, stamp in enumerate(bank):
            np.testing.assert_array_equal(whole[2 * i : 2 * i + 2], stamp.on(images))
