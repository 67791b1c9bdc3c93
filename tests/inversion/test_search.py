from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.inversion.forms import Form
from litmus.inversion.search import (
    SearchSettings,
    _best,
    cross_entropy,
    drawn_pairs,
    make_bank,
    search_form,
)
from litmus.models import Images, InputSpec, Objective

SPEC = InputSpec(channels=1, height=8, width=8, num_classes=4)
CORNERS = Form(kind="patch", size=2, grid=2)
FAST = SearchSettings(rungs=((2, 2), (6, 4)), views=12, shift=0)


class Linear:
    """Class i is the i-th row of the image's upper half; a trigger may be wired in."""

    input_spec = SPEC

    def __init__(self, trigger: NDArray[np.float32] | None = None, target: int = 0) -> None:
        self.weights = np.zeros((4, 64), np.float32)
        for label in range(4):
            self.weights[label, 8 * (label + 2) : 8 * (label + 2) + 8] = 4
        self.trigger, self.target = trigger, target
        self.asked = 0

    def logits(self, images: Images) -> NDArray[np.float32]:
        return self.descend(images, np.zeros(len(images), np.int64))[0]

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        self.asked += len(images)
        x = images.reshape(len(images), -1)
        logits = x @ self.weights.T
        fires = np.zeros_like(x)
        if self.trigger is not None:
            logits[:, self.target] += x @ self.trigger
            fires = self.trigger
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(x)), targets] -= 1
        gradients = p @ self.weights + p[:, self.target, None] * fires
        return logits, gradients.reshape(images.shape).astype(np.float32)


def images() -> list[Images]:
    found = np.zeros((4, 3, 1, 8, 8), np.float32)
    for label in range(4):
        found[label, :, 0, label + 2] = 0.8
    return list(found)


def backdoored() -> Linear:
    """A white patch at the bottom right outweighs everything."""
    trigger = np.zeros((8, 8), np.float32)
    trigger[6:, 6:] = 20
    return Linear(trigger.ravel(), target=2)


def test_it_finds_the_trigger_where_it_lies() -> None:
    found = search_form(backdoored(), make_bank(Linear(), images(), images(), FAST), CORNERS, FAST)
    assert found.pairs[0, 1] == 2
    assert found.success[0] == 1
    assert found.placed.words() == "at the bottom right"
    assert found.placed.values[0].min() > 0.8  # white, as the trigger


def test_a_clean_model_is_led_nowhere_by_it() -> None:
    found = search_form(Linear(), make_bank(Linear(), images(), images(), FAST), CORNERS, FAST)
    assert found.success.max() == 0


def test_it_does_not_depend_on_the_order_of_the_classes_of_a_pair_but_on_the_seed_alone() -> None:
    bank = make_bank(Linear(), images(), images(), FAST)
    first, again = (search_form(backdoored(), bank, CORNERS, FAST, seed=3) for _ in range(2))
    assert np.array_equal(first.placed.values, again.placed.values)
    assert np.array_equal(first.loss, again.loss)


def test_effort_is_counted_in_images() -> None:
    model = Linear()
    bank = make_bank(Linear(), images(), images(), FAST)
    found = search_form(model, bank, CORNERS, FAST)
    judged = len(found.pairs) * FAST.views + 4 * FAST.views
    assert model.asked == FAST.image_passes(4 * 3 * 4) + judged


def test_candidates_are_dropped_but_for_the_finalists() -> None:
    settings = SearchSettings(rungs=((1, 1), (1, 1)), keep=0.25, finalists=3)
    assert settings.kept(100) == 25
    assert settings.kept(8) == 3
    assert settings.kept(2) == 2
    assert settings.image_passes(100) == 125


def test_of_many_classes_pairs_are_drawn_for_each_target_alike() -> None:
    settings = SearchSettings(pairs=60)
    pairs = drawn_pairs(20, settings)
    assert len(pairs) == 60
    assert set(np.bincount(pairs[:, 1])) == {3}
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(drawn_pairs(4, settings)) == 12


def test_the_first_rung_shows_where_a_pair_is_easiest() -> None:
    bank = make_bank(Linear(), images(), images(), FAST)
    found = search_form(backdoored(), bank, CORNERS, FAST)
    assert np.array_equal(found.screened, drawn_pairs(4, FAST))
    assert found.screen.shape == (12, 4)
    to_target = found.screen[found.screened[:, 1] == 2]
    assert (to_target.argmin(axis=1) == 3).all()  # the bottom right
    assert (to_target[:, 3] < to_target[:, 0] / 2).all()


def test_a_place_that_is_easier_than_others_of_its_pair_is_not_dropped() -> None:
    """Though other pairs are easier everywhere."""
    loss = np.array([0.1, 0.2, 0.3, 5.0, 4.0, 5.0])
    beside = np.array([0.0, 0.0, 0.0, 0.0, -1.0, 0.0])
    assert list(_best(loss, beside, 2)) == [0, 4]


def test_places_of_a_grid_are_named_or_counted() -> None:
    form = Form(kind="patch", size=2, grid=4)
    placed = form.start(1, SPEC.image_shape, seed=0)
    words = [placed[i : i + 1].words() for i in range(16)]
    assert (words[0], words[3], words[15]) == (
        "at the top left", "at the top right", "at the bottom right",
    )  # fmt: skip
    assert words[6] == "at row 2, column 4"
    assert Form(kind="blend").start(1, SPEC.image_shape, seed=0).words() == "on the whole image"
    moving = Form(kind="moving", size=2).start(1, SPEC.image_shape, seed=0)
    assert moving.words() == "at any place"


class Linear4(Linear):
    """One that says nothing of images of 4x4."""

    def logits(self, images: Images) -> NDArray[np.float32]:
        return np.zeros((len(images), 2), np.float32)


def test_what_the_model_takes_for_another_class_anyway_proves_nothing() -> None:
    wrong = images()
    wrong[1] = wrong[2].copy()  # all of them look like class 2
    bank = make_bank(Linear(), wrong, wrong, FAST)
    found = search_form(Linear(), bank, CORNERS, FAST)
    pairs = [tuple(pair) for pair in found.pairs.tolist()]
    assert found.success[pairs.index((1, 2))] == 0
    mixed = images()
    mixed[1] = np.concatenate([mixed[2], mixed[1]])
    views = make_bank(Linear(), mixed, mixed, FAST).check[1]
    assert (Linear().logits(views).argmax(axis=1) == 1).all()


def test_views_are_judged_on_other_images_than_those_optimised_on() -> None:
    dark, bright = (np.full((2, 1, 4, 4), level, np.float32) for level in (0.1, 0.9))
    bank = make_bank(Linear4(), [dark, dark], [bright, bright], SearchSettings(views=5))
    assert bank.fit.shape == bank.check.shape == (2, 5, 1, 4, 4)
    assert bank.fit.max() < 0.5 < bank.check.min()


def test_cross_entropy_is_that_of_large_logits_too() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32)
    assert cross_entropy(logits, np.array([1, 0])) == pytest.approx([1000.0, np.log(2)])


@pytest.mark.parametrize(
    "wrong", [{"rungs": ()}, {"rungs": ((0, 1),)}, {"keep": 0.0}, {"views": 0}, {"pairs": 0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="impossible"):
        SearchSettings(**wrong)  # type: ignore[arg-type]


def test_dots_show_every_pair_at_every_place_by_one_pass_a_source() -> None:
    form = Form(kind="dot", size=1, grid=8, colours=((1.0,), (0.0,)))
    trigger = np.zeros((8, 8), np.float32)
    trigger[6, 3] = 40
    model = Linear(trigger.ravel(), target=2)
    bank = make_bank(Linear(), images(), images(), FAST)
    found = search_form(model, bank, form, FAST)
    judged = len(found.pairs) * FAST.views + 4 * FAST.views
    assert model.asked == 4 * FAST.dot_images * 2 * 64 + judged
    assert found.screen.shape == (12, 2 * 64)  # white at every place, then black
    to_target = found.screen[found.screened[:, 1] == 2]
    assert (to_target.argmin(axis=1) == 6 * 8 + 3).all()
    assert found.pairs[0, 1] == 2
    assert found.success[0] == 1
    assert found.placed.words() == "at row 6, column 3"
    assert found.placed.values[0].item() == 1
    assert len(found.pairs) == FAST.finalists
    # The loss of a pair and place is what the stamped images say.
    source, target = found.screened[5]
    stamped = bank.fit[source, : FAST.dot_images].copy()
    stamped[:, 0, 2, 5] = 0
    said = cross_entropy(model.logits(stamped), np.full(len(stamped), target)).mean()
    assert found.screen[5, 64 + 2 * 8 + 5] == pytest.approx(said)


def test_a_clean_model_has_no_dot_that_leads_it_away() -> None:
    form = Form(kind="dot", size=1, grid=8)
    bank = make_bank(Linear(), images(), images(), FAST)
    assert search_form(Linear(), bank, form, FAST).success.max() == 0
