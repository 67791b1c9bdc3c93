from __future__ import annotations

import numpy as np
import pytest

from litmus.errors import UsageError
from litmus.inversion import ClassImages
from litmus.models import InputSpec
from tests.conftest import random_split

SPEC = InputSpec(channels=3, height=12, width=12, num_classes=4)


def test_images_are_drawn_by_class_without_replacement() -> None:
    split = random_split(SPEC, per_class=9)
    drawn = ClassImages.draw(split, SPEC, per_class=6)
    assert (drawn.num_classes, drawn.per_class) == (4, 6)
    assert drawn.images.shape == (4, 6, 3, 12, 12)
    for label, images in enumerate(drawn.images):
        own = (split.images[split.of_class(label)].float() / 255).numpy()
        matches = (images[:, None] == own[None]).all(axis=(2, 3, 4))
        assert matches.sum(axis=1).tolist() == [1] * 6
        assert matches.sum(axis=0).max() == 1
    again, other = (ClassImages.draw(split, SPEC, per_class=6, seed=seed) for seed in (0, 1))
    assert np.array_equal(drawn.images, again.images)
    assert not np.array_equal(drawn.images, other.images)


def test_too_few_or_misshapen_images_are_refused() -> None:
    split = random_split(SPEC, per_class=3)
    with pytest.raises(UsageError, match=r"class 0 \(expected 4, got 3\)"):
        ClassImages.draw(split, SPEC, per_class=4)
    grey = InputSpec(channels=1, height=12, width=12, num_classes=4)
    with pytest.raises(UsageError, match="another shape"):
        ClassImages.draw(split, grey, per_class=2)


def test_the_first_of_images_by_class_are_taken() -> None:
    images = np.random.default_rng(0).random((4, 5, 3, 12, 12)).astype(np.float32)
    taken = ClassImages.first(images, SPEC, per_class=3)
    np.testing.assert_array_equal(taken.images, images[:, :3])
    assert taken.flat.shape == (12, 3, 12, 12)
    for wrong, message in (
        (images[:3], "not those of every class"),
        (images[..., :9], "another shape"),
        (images[:, :2], r"expected 3, got 2"),
    ):
        with pytest.raises(UsageError, match=message):
            ClassImages.first(wrong, SPEC, per_class=3)
