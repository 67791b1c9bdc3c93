from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from litmus.attacks import Trigger
from litmus.detectors import DETECTORS
from litmus.detectors.inverting import InversionDetector
from litmus.formats import zoo_file
from litmus.inversion import MaskSettings
from litmus.models import InputSpec
from litmus.reproduction import Study
from litmus.reproduction.tasks import FitTask, collage, digest, fitted_detector
from litmus.schema import to_table
from tests.reproduction.conftest import Open

TRIGGERS = [to_table(Trigger(index=i, size=3)) for i in range(2)]


def fit_task(study: Study, detector: str = "ulp", **settings: object) -> FitTask:
    zoo = study.zoos["small"]
    training, test = zoo.split("train"), zoo.split("test")
    return study.fits("small", detector, 2, training, test, **settings)[0]  # type: ignore[arg-type]


def test_a_key_holds_what_the_result_depends_on_and_no_place(opened: Open) -> None:
    study = opened()
    task = fit_task(study)
    moved = tuple(replace(e, path=Path("/elsewhere") / e.path.name) for e in task.training)
    assert digest(replace(task, training=moved)) == digest(task)
    entry = task.training[0]
    renumbered = replace(entry, spec=replace(entry.spec, twin=99))
    others = [
        fit_task(study, "noise"),
        fit_task(study, dropout=0.0),
        fit_task(study, triggers=TRIGGERS),
        replace(task, seed=1),
        replace(task, test=task.test[1:]),
        replace(task, training=(renumbered, *task.training[1:])),
    ]
    assert len({digest(task), *map(digest, others)}) == 7
    measured = study.measurement("small", "neural_cleanse", entry)
    images = replace(measured.images, sha256="0" * 64)
    assert digest(replace(measured, images=images)) != digest(measured)
    assert digest(replace(measured, images=replace(images, data=Path("x")))) == digest(
        replace(measured, images=images)
    )


def test_a_fit_scores_the_test_models_with_the_detector_that_it_keeps(opened: Open) -> None:
    task = fit_task(opened())
    result = task.compute()
    detector = fitted_detector(result)
    scores = [detector.score(zoo_file.load(entry.path)) for entry in task.test]
    assert result["scores"] == scores
    assert detector.num_patterns == 2
    assert len(detector.members) == 1
    assert result["cpu_seconds"] > 0
    assert detector.scope["settings"]["epochs"] == 2


def test_pasted_triggers_stay_as_they_are(opened: Open) -> None:
    study = opened()
    task = fit_task(study, "noise", triggers=TRIGGERS)
    (patterns,) = [member.patterns for member in fitted_detector(task.compute()).members]
    spec = study.zoos["small"].input_spec
    assert np.array_equal(patterns, collage(TRIGGERS, spec, count=2, seed=0))


def test_a_collage_has_every_trigger_in_every_image() -> None:
    spec = InputSpec(channels=3, height=40, width=50, num_classes=2)
    (colour,) = [to_table(Trigger(kind="colour", index=0))]
    images = collage([colour], spec, count=3, seed=1)
    assert images.shape == (3, 3, 40, 50)
    pixels = Trigger(kind="colour", index=0).pixels(3).numpy() / np.float32(255)
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, pixels.shape)[0]
        assert (windows == pixels).all(axis=(-1, -2, -3)).sum() == 1
        assert image.sum() == pytest.approx(pixels.sum())
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images, collage([colour], spec, count=3, seed=1))


def test_a_measurement_is_the_detectors_score(opened: Open) -> None:
    study = opened()
    entry = study.zoos["small"].entries[0]
    task = study.measurement("small", "neural_cleanse", entry)
    assert task.settings["steps"] == MaskSettings().steps == 3
    kind = DETECTORS["neural_cleanse"]
    assert issubclass(kind, InversionDetector)
    test = study.images["small"].load().test
    detector = kind.uncalibrated(entry.spec.input_spec, **task.settings).with_images(test)
    assert task.compute()["score"] == detector.score(zoo_file.load(entry.path))


def test_the_patch_is_sought_where_and_as_large_as_the_attack_has_it(opened: Open) -> None:
    study = opened()
    recipe = study.recipes["small"]
    attack = replace(recipe.attacks[0], table={"name": "patch", "place": "surface"})
    other = replace(recipe, attacks=(attack,), triggers=replace(recipe.triggers, size=4))
    entry = study.zoos["small"].entries[0]
    task = replace(study, recipes={"small": other}).measurement("small", "attack_based", entry)
    assert (task.settings["place"], task.settings["size"]) == ("surface", 4)
    assert study.measurement("small", "attack_based", entry).settings["place"] == "corner"
