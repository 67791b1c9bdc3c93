from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from litmus.datasets import ImageDataset
from litmus.detectors import DETECTORS, InversionDetector, load_detector
from litmus.detectors.attack_based import AttackBasedDetector
from litmus.detectors.neural_cleanse import norm_statistics
from litmus.errors import DetectorError, ModelError, UsageError, ZooError
from litmus.evaluation import evaluate
from litmus.formats import zoo_file
from litmus.formats.torch_model import TorchModel
from litmus.models import InputSpec
from litmus.zoo import Zoo

FAST: dict[str, dict[str, Any]] = {
    "attack_based": {"steps": 30, "images_per_class": 16},
    "neural_cleanse": {"steps": 60, "images_per_class": 16, "batch_images": 16},
}
both = pytest.mark.parametrize("name", list(FAST))


def kind_of(name: str) -> type[InversionDetector[Any]]:
    found = DETECTORS[name]
    assert issubclass(found, InversionDetector)
    return found


@pytest.fixture(scope="module")
def fitted(small_zoo: Zoo, digits: ImageDataset) -> AttackBasedDetector:
    return AttackBasedDetector.fit(small_zoo, images=digits.test, models=6, **FAST["attack_based"])


@both
def test_what_they_need_is_said(name: str) -> None:
    kind = DETECTORS[name]
    assert kind.name == name
    assert not kind.needs_zoo
    assert (kind.needs_images, kind.needs_gradients) == (True, True)


@both
def test_a_module_in_memory_is_scored_and_left_alone(
    name: str, small_zoo: Zoo, digits: ImageDataset
) -> None:
    module = zoo_file.load(small_zoo.entries[0].path).torch_module()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    detector = kind_of(name).uncalibrated(digits.input_spec, **FAST[name])
    ready = detector.with_images(digits.test)
    score = ready.score(TorchModel(module, digits.input_spec))
    assert np.isfinite(score)
    assert score == ready.score(zoo_file.load(small_zoo.entries[0].path))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    # Without images there is nothing to invert on; without clean models nothing to judge by.
    with pytest.raises(UsageError, match="needs clean images"):
        detector.score(TorchModel(module, digits.input_spec))
    with pytest.raises(UsageError, match="n = 0 clean models"):
        ready.judge(ready.measure(TorchModel(module, digits.input_spec)))


def test_the_pair_of_a_backdoor_is_found(small_zoo: Zoo, digits: ImageDataset) -> None:
    detector = AttackBasedDetector.uncalibrated(digits.input_spec).with_images(digits.test)
    chosen = [entry for entry in small_zoo.entries if entry.backdoored][:4]
    hits = 0
    for entry in chosen:
        found = detector.invert(zoo_file.load(entry.path))
        attack = entry.spec.attack
        pair = (attack["source_class"], attack["target_class"])
        hits += (found.source_class, found.target_class) == pair
        assert found.success > 0.8
    assert hits >= 3


def test_neural_cleanse_names_a_class_and_shows_a_trigger(
    small_zoo: Zoo, digits: ImageDataset
) -> None:
    detector = kind_of("neural_cleanse").uncalibrated(digits.input_spec, **FAST["neural_cleanse"])
    model = zoo_file.load(small_zoo.entries[0].path)
    found = detector.with_images(digits.test).invert(model)
    assert found.norms.shape == (10,)
    assert found.flagged_class in (None, found.smallest)
    assert found.trigger.shape == (1, 28, 28)
    measured = detector.with_images(digits.test).measure(model)
    assert measured.score == pytest.approx(found.anomaly_index)


def test_what_norms_tell_knows_no_order_of_classes() -> None:
    norms = np.array([40.0, 50.0, 60.0, 45.0, 55.0])
    statistics = norm_statistics(norms, 784)
    np.testing.assert_array_equal(norm_statistics(norms[::-1], 784), statistics)
    # One class that is reached more easily: all the evidence rises, but for the median.
    one = norm_statistics(np.where(norms == 50, 4.0, norms), 784)
    assert (one >= statistics).all()
    assert (one > statistics)[[0, 2, 3]].all()
    # All of them: the largest network in the zoo, or a backdoor to every class.
    every = norm_statistics(norms / 10, 784)
    np.testing.assert_allclose(every[:2] - statistics[:2], np.log(10))
    np.testing.assert_allclose(every[2:], statistics[2:])
    assert np.isfinite(norm_statistics(np.zeros(5), 784)).all()
    assert not np.isfinite(norm_statistics(np.full(5, np.nan), 784)).any()


def test_fitting_calibrates(fitted: AttackBasedDetector, small_zoo: Zoo) -> None:
    assert len(fitted.calibration.scores) == 6
    assert fitted.calibration.smallest_p_value == pytest.approx(1 / 7)
    assert (fitted.held_out["n_clean"], fitted.held_out["n_backdoored"]) == (6, 6)
    assert fitted.held_out["auc"] > 0.8
    # Calibrated scores are log-odds; less loss is never held in a model's favour.
    assert (fitted.calibration.scores < 0).mean() > 0.5
    assert len(fitted.heads) == 5
    assert all((head.weight >= 0).all() for head in fitted.heads)
    triggers = {entry.trigger_id for entry in small_zoo.split("test")}
    assert not triggers & set(fitted.scope["triggers"])


def test_a_file_holds_settings_and_calibration_but_no_image(
    fitted: AttackBasedDetector, digits: ImageDataset, small_zoo: Zoo, tmp_path: Path
) -> None:
    path = tmp_path / "attack.litmus"
    path.write_bytes(fitted.to_bytes())
    assert path.stat().st_size < 12_000
    loaded = load_detector(path)
    assert isinstance(loaded, AttackBasedDetector)
    assert loaded.clean is None
    assert loaded.settings == fitted.settings
    assert loaded.lacks_images
    assert not loaded.with_images(digits.test).lacks_images
    model = zoo_file.load(small_zoo.entries[1].path)
    assert loaded.with_images(digits.test).score(model) == fitted.score(model)


def test_damaged_options_are_an_error(fitted: AttackBasedDetector, digits: ImageDataset) -> None:
    arrays = {**fitted.arrays(), **fitted.calibration.arrays()}
    header: dict[str, Any] = {
        "input_spec": fitted.input_spec.to_json(),
        "calibration": fitted.calibration.to_json(),
        "scope": {},
        "held_out": {},
    }
    with pytest.raises(DetectorError, match="malformed"):
        AttackBasedDetector.from_file(arrays, {**header, "options": {}})
    # Settings are looked at where they are used: reading a file imports no PyTorch.
    unknown = {**header, "options": {"settings": {"sizes": 3}}}
    with pytest.raises(UsageError, match=r"unknown setting .* got sizes"):
        AttackBasedDetector.from_file(arrays, unknown).with_images(digits.test)


def test_it_stands_beside_others_in_an_evaluation(
    fitted: AttackBasedDetector, small_detector: Any, small_zoo: Zoo, digits: ImageDataset
) -> None:
    few = replace(small_zoo, entries=small_zoo.split("test")[:6])
    detectors = {"ulp": small_detector, "attack": replace(fitted, clean=None)}
    evaluation = evaluate(few, detectors, fpr=0.15, images=digits.test)
    row = evaluation.headline("attack")
    assert (row.n_clean, row.n_backdoored, row.num_patterns) == (3, 3, None)
    assert row.auc > 0.6
    assert [(c.first, c.second) for c in evaluation.comparisons] == [("ulp", "attack")]


def test_mistakes_are_named(small_zoo: Zoo, digits: ImageDataset) -> None:
    spec = digits.input_spec
    with pytest.raises(UsageError, match=r"unknown setting .* got patch"):
        AttackBasedDetector.uncalibrated(spec, patch=3)
    detector = AttackBasedDetector.uncalibrated(spec, steps=1).with_images(digits.test)

    class NoGradients:
        input_spec = spec
        outputs = "logits"

    with pytest.raises(ModelError, match="needs gradients"):
        detector.measure(NoGradients())  # type: ignore[arg-type]
    other = InputSpec(channels=1, height=28, width=28, num_classes=3)
    with pytest.raises(ModelError, match="another shape"):
        detector.measure(TorchModel(torch.nn.Flatten(), other))
    with pytest.raises(UsageError, match="models is impossible"):
        AttackBasedDetector.fit(small_zoo, images=digits.test, models=-1)
    clean = replace(small_zoo, entries=tuple(e for e in small_zoo.entries if not e.backdoored))
    with pytest.raises(ZooError, match="too few models"):
        AttackBasedDetector.fit(clean, images=digits.test)


def test_outputs_that_are_not_numbers_are_an_error(digits: ImageDataset) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] * torch.nan

    detector = AttackBasedDetector.uncalibrated(digits.input_spec, steps=1)
    with pytest.raises(ModelError, match="not numbers"):
        detector.with_images(digits.test).measure(TorchModel(Broken(), digits.input_spec))
