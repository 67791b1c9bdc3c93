from __future__ import annotations

import numpy as np
import pytest

from litmus.inversion.forms import Form, Placed, forms_for

FORMS = forms_for(3, 12, 10)
RANDOM = np.random.default_rng(0)


def placed(form: Form, pairs: int = 2) -> Placed:
    return form.start(pairs, (3, 12, 10), 0).moved(np.random.default_rng(1))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_gradients_are_collected_from_where_values_were_stamped(form: Form) -> None:
    candidates = placed(form)
    count = len(candidates.values)
    images = RANDOM.uniform(0.2, 0.8, (count, 4, 3, 12, 10)).astype(np.float32)
    weights = RANDOM.standard_normal(images.shape).astype(np.float32)

    def objective(values: np.ndarray) -> float:
        candidates.values[:] = values
        return float((candidates.stamp(images).astype(np.float64) * weights).sum() / 4)

    start = candidates.values.copy()
    gradient = candidates.collect(weights * _slope(form), candidates.stamp(images))
    step = RANDOM.standard_normal(start.shape).astype(np.float32) * 1e-2
    change = (objective(start + step) - objective(start - step)) / 2
    assert change == pytest.approx(float((gradient * step).sum()), rel=1e-3, abs=1e-4)


def _slope(form: Form) -> float:
    """How much a whole-image form's value moves a pixel; Adam does not care for it."""
    return {"blend": form.strength, "additive": 2 * form.strength}.get(form.kind, 1.0)


@pytest.mark.parametrize("place", range(9))
def test_a_patch_lies_inside_the_image_at_its_place(place: int) -> None:
    form = Form(kind="patch", size=3, grid=3)
    mask, pattern = placed(form, 1)[place : place + 1].picture()
    rows, columns = np.nonzero(mask[0])
    assert mask.sum() == 9
    assert pattern.shape == (3, 12, 10)
    assert rows.min() == np.rint(place // 3 / 2 * 9)
    assert columns.min() == np.rint(place % 3 / 2 * 7)


def test_a_moving_patch_lies_elsewhere_on_each_image() -> None:
    form = Form(kind="moving", size=2)
    corners = placed(form).corners
    assert len(np.unique(corners[0], axis=0)) > 10
    assert (corners >= 0).all()
    assert (corners <= [10, 8]).all()


def test_additive_patterns_stay_within_their_bound() -> None:
    form = Form(kind="additive", strength=0.03)
    candidates = placed(form, 1)
    candidates.values[:] = RANDOM.random(candidates.values.shape)
    images = RANDOM.random((1, 5, 3, 12, 10)).astype(np.float32)
    stamped = candidates.stamp(images)
    assert np.abs(stamped - images).max() <= 0.03 + 1e-6
    assert stamped.min() >= 0
    assert stamped.max() <= 1


def test_patches_grow_with_the_image() -> None:
    assert [form.size for form in forms_for(1, 28, 28)[:2]] == [5, 3]
    assert [form.size for form in forms_for(3, 224, 224)[:2]] == [37, 22]


def test_dots_are_pixels_on_grey_images_and_have_colours_on_others() -> None:
    white, pixel = forms_for(1, 28, 28)[-2:]
    assert (white.size, white.grid, white.colours) == (2, 14, ((1.0,),))
    assert (pixel.size, pixel.grid, pixel.colours) == (1, 28, ((1.0,),))
    white, coloured = forms_for(3, 32, 32)[-2:]
    assert (white.size, white.grid) == (coloured.size, coloured.grid) == (2, 16)
    placed = coloured.start(2, (3, 32, 32), seed=0)
    assert placed.values.shape == (2 * 3 * 256, 3, 2, 2)
    # Each colour at every place, and all of it again for the next pair.
    assert np.array_equal(
        placed.values[[0, 255, 256, 767, 768], :, 1, 1].argmax(axis=1), [0, 0, 1, 2, 0]
    )
    assert set(placed.values.ravel()) == {0, 1}
    assert placed.corners[[0, 255, 256], 0].tolist() == [[0, 0], [30, 30], [0, 0]]
    assert len({form.name for form in forms_for(3, 32, 32)}) == 7
