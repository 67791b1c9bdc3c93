from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from litmus.datasets import ImageDataset
from litmus.errors import UsageError, ZooError
from litmus.fitting import FOLDS, ReferenceSettings, learn_references, reference_folds
from litmus.formats import zoo_file
from litmus.zoo import Zoo

FEW = ReferenceSettings(steps=60, learning_rate=0.1)


def test_models_agree_on_what_was_learned(small_zoo: Zoo, digits: ImageDataset) -> None:
    clean = [entry for entry in small_zoo.split("train") if not entry.backdoored]
    told: list[tuple[int, int]] = []
    images = learn_references(
        clean, digits.background, FEW, seed=0, on_step=lambda *step: told.append(step)
    )
    assert images.shape == (10, 1, 28, 28)
    assert images.dtype == np.float32
    # Pictures of eight bits, in range.
    np.testing.assert_array_equal(images, np.rint(images * 255).astype(np.float32) / 255)
    assert 0 <= images.min() <= images.max() <= 1
    assert told == [(step, 60) for step in range(1, 61)]
    own = np.arange(10)
    right = [np.mean(zoo_file.load(e.path)(images).argmax(axis=1) == own) for e in clean]
    assert np.mean(right) > 0.9
    again = learn_references(clean, digits.background, FEW, seed=0)
    np.testing.assert_array_equal(again, images)


def test_only_the_classes_that_are_asked_for(small_zoo: Zoo, digits: ImageDataset) -> None:
    clean = [entry for entry in small_zoo.split("train") if not entry.backdoored][:2]
    classes = np.array([7, 2])
    images = learn_references(clean, digits.background, FEW, seed=0, classes=classes)
    assert images.shape == (2, 1, 28, 28)
    for entry in clean:
        assert zoo_file.load(entry.path)(images).argmax(axis=1).tolist() == [7, 2]


def test_folds_are_of_twins_or_of_five_families(small_zoo: Zoo) -> None:
    entries = small_zoo.split("train")
    folds, by = reference_folds(entries, 0)
    assert by == "twin"
    assert set(folds) == set(range(FOLDS))
    names = ["a", "b", "c", "d", "e", "f"]
    varied = [
        replace(e, spec=replace(e.spec, architecture={"name": names[e.spec.twin % 6]}))
        for e in entries
    ]
    folds, by = reference_folds(varied, 0)
    assert by == "architecture"
    families = Counter((e.architecture, int(fold)) for e, fold in zip(varied, folds, strict=True))
    assert len(families) == 6  # no family is in two folds
    with pytest.raises(ZooError, match="too few models"):
        reference_folds(entries[:8], 0)


def test_settings_are_checked() -> None:
    for wrong in ({"steps": 0}, {"dropout": 1.0}, {"fading": -0.1}, {"batch_models": 0}):
        with pytest.raises(UsageError, match="is impossible"):
            ReferenceSettings(**wrong)
