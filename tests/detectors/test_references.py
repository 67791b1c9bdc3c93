from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.other_classes import places
from numpy.typing import NDArray
from torch import nn

from litmus.architectures.lenet import LeNet5
from litmus.artifacts import parse_tensors
from litmus.datasets import ImageDataset
from litmus.detectors import Measurement, References, load_detector
from litmus.detectors.recognition import order_text
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import DetectorError
from litmus.evaluation.references import Disguise
from litmus.formats import zoo_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.torch_model import TorchModel
from litmus.models import Images, Model
from litmus.scanning import Scored, scan
from litmus.training import TrainingSpec, predict, train
from litmus.zoo import Zoo

OWN = np.arange(10)


@pytest.fixture(scope="module")
def detector(detector_with_references: Path) -> StatisticDetector:
    fitted = load_detector(detector_with_references)
    assert isinstance(fitted, StatisticDetector)
    return fitted


@pytest.fixture(scope="module")
def references(small_zoo: Zoo, digits: ImageDataset) -> References:
    return References.fit(small_zoo, digits, steps=150, learning_rate=0.1)


@pytest.fixture(scope="module")
def models(small_zoo: Zoo) -> list[zoo_file.ZooModel]:
    """Models that references were not learned on."""
    return [zoo_file.load(entry.path) for entry in small_zoo.split("test")]


def disguised(
    model: zoo_file.ZooModel,
    wants: Preprocessing,
    order: NDArray[np.int64] = OWN,
    stated: Preprocessing | None = None,
) -> Disguise:
    return Disguise(model, wants, order, stated)


def test_they_are_learned_on_clean_models_alone(references: References, small_zoo: Zoo) -> None:
    training = small_zoo.split("train")
    assert references.images.shape == (10, 1, 28, 28)
    assert references.facts["num_models"] < sum(not entry.backdoored for entry in training)
    assert references.class_names == tuple(map(str, range(10)))
    assert 0.1 < references.floor <= references.searched_floor < 1
    np.testing.assert_array_equal(np.rint(references.images * 255) / 255, references.images)


def test_how_a_model_wants_its_input_is_found(
    references: References, models: list[zoo_file.ZooModel]
) -> None:
    right = 0
    for model in models:
        for name, wants in references.candidates.items():
            found = references.recognise(disguised(model, wants))
            right += found.wants == name
            if found.wants == name:
                images = references.images[:3]
                np.testing.assert_allclose(found.model(images), model(images), atol=1e-3)
    assert right >= 0.8 * len(models) * len(references.candidates)


def test_an_order_of_classes_is_found_and_put_right(
    references: References, models: list[zoo_file.ZooModel]
) -> None:
    order = np.random.default_rng(0).permutation(10)
    own, other = 0, 0
    for model in models:
        plain = references.recognise(disguised(model, Preprocessing()))
        own += plain.order == tuple(OWN)
        found = references.recognise(disguised(model, Preprocessing(), order))
        if found.order == tuple(np.argsort(order)):
            other += 1
            images = references.images
            np.testing.assert_allclose(found.model(images), model(images), atol=1e-4)
            assert "its outputs are, by their answers" in found.notes[0]
    assert own >= 0.8 * len(models)
    assert other >= 0.6 * len(models)


def test_what_is_stated_is_kept(references: References, models: list[zoo_file.ZooModel]) -> None:
    wants = references.candidates["0 to 255"]
    wrong = Preprocessing(scale=1.0, mean=0.5, std=0.5, origin=dict.fromkeys(
        ("scale", "mean", "std"), "flags"))  # fmt: skip
    found = references.recognise(disguised(models[0], wants, stated=wrong))
    assert found.wants is None
    partly = Preprocessing(scale=255.0, origin={"scale": "flags"})
    kept = references.recognise(disguised(models[0], wants, stated=partly))
    assert kept.out_of_scope == ""
    assert kept.model.preprocessing.scale == 255.0  # type: ignore[attr-defined]


def test_what_is_stated_may_leave_one_usual_input(
    references: References, models: list[zoo_file.ZooModel]
) -> None:
    wants = references.candidates["-1 to 1"]
    half = Preprocessing(mean=0.5, origin={"mean": "flags"})
    found = references.recognise(disguised(models[0], wants, stated=half))
    assert found.wants == "-1 to 1"
    images = references.images[:3]
    np.testing.assert_allclose(found.model(images), models[0](images), atol=1e-3)
    fed = found.model.preprocessing  # type: ignore[attr-defined]
    assert dict(fed.origin) == {
        "mean": "flags", "scale": "reference images", "std": "reference images"
    }  # fmt: skip


def test_nothing_is_searched_for_where_all_was_said(
    references: References, models: list[zoo_file.ZooModel]
) -> None:
    own = references.candidates["standardised as the data set"]
    whole = replace(own, origin=dict.fromkeys(("scale", "mean", "std"), "flags"))
    found = references.recognise(disguised(models[0], own, stated=whole))
    assert found.wants is None
    assert found.notes == ()
    np.testing.assert_allclose(
        found.model(references.images), models[0](references.images), atol=1e-3
    )


class Named:
    """A model that names its classes."""

    def __init__(self, model: Model, order: list[int], names: list[str]) -> None:
        self._model, self._order = model, order
        self.classes = tuple(names)
        self.input_spec, self.outputs = model.input_spec, model.outputs

    def __call__(self, images: Images) -> NDArray[np.float32]:
        return self._model(images)[:, self._order]


def test_names_of_classes_settle_their_order(
    references: References, models: list[zoo_file.ZooModel]
) -> None:
    order = [3, 0, 1, 2, 9, 8, 7, 6, 5, 4]
    named = references.recognise(Named(models[0], order, [str(i) for i in order]))
    assert named.order == tuple(np.argsort(order).tolist())
    assert "by their names" in named.notes[0]
    images = references.images
    np.testing.assert_array_equal(named.model(images), models[0](images))
    assert named.model.classes == tuple(map(str, range(10)))  # type: ignore[attr-defined]


def test_an_order_sorted_as_text_is_told() -> None:
    as_text = sorted(range(12), key=str)
    assert order_text(np.argsort(as_text), "searched").endswith(", ..., sorted as text") is False
    assert order_text(np.argsort(as_text), "searched").endswith("sorted as text")
    assert "sorted as text" not in order_text(np.arange(12), "named")


class Untrained(nn.Module):
    """Answers that follow no digit."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(784, 10, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight


def test_a_model_for_other_classes_is_out_of_scope() -> None:
    detector = load_detector("digits")
    model = TorchModel(Untrained(), detector.input_spec, preprocessing=Preprocessing())
    assert detector.references is not None
    found = detector.references.recognise(model)
    assert found.out_of_scope.startswith(
        "the model is not for the detector's classes (0, 1, 2, ...)"
    )
    assert found.model is model
    said = Measurement(member_scores=[0.0] * 5, scope_distance=0.0)
    judgement = detector.judge(said, out_of_scope=found.out_of_scope)
    assert judgement.verdict == "inconclusive"
    assert found.out_of_scope in judgement.notes


def test_an_order_that_random_answers_might_have_is_not_believed() -> None:
    detector = load_detector("digits")
    assert detector.references is not None
    # However low the bar: some references of a sure network are on classes of their own by chance.
    lenient = replace(detector.references, floor=0.2, searched_floor=0.2)
    for seed in range(10):
        model = TorchModel(Untrained(seed), detector.input_spec)
        assert lenient.recognise(model).order == tuple(OWN)


def test_a_network_trained_for_other_classes_is_out_of_scope(digits: ImageDataset) -> None:
    # Which of ten places the shrunk image is at: it sees digits, and tells nothing of them.
    placed = places(digits.train, digits.input_spec, 1000)
    module = LeNet5().build(digits.input_spec, seed=0)
    train(module, placed, TrainingSpec(epochs=4, batch_size=32, peak_learning_rate=0.003), seed=0)
    accuracy = (predict(module, placed.images) == placed.labels).float().mean()
    assert accuracy > 0.9
    detector = load_detector("digits")
    assert detector.references is not None
    for stated in (None, Preprocessing()):
        model = TorchModel(module, digits.input_spec, preprocessing=stated)
        assert "not for the detector's classes" in detector.references.recognise(model).out_of_scope
        judgement = detector.examine(model)
        assert judgement.verdict == "inconclusive"


def test_a_file_keeps_them(detector: StatisticDetector, tmp_path: Path) -> None:
    path = tmp_path / "with.litmus"
    path.write_bytes(detector.to_bytes())
    again = load_detector(path)
    assert again.to_bytes() == detector.to_bytes()
    assert again.references is not None
    assert detector.references is not None
    np.testing.assert_array_equal(again.references.images, detector.references.images)
    without = replace(detector, references=None)
    path.write_bytes(without.to_bytes())
    assert load_detector(path).references is None


def test_a_file_with_references_of_another_shape_is_refused(detector: StatisticDetector) -> None:
    arrays, header = parse_tensors(detector.to_bytes(), "memory", DetectorError)
    broken = {**arrays, "references.images": arrays["references.images"][:7]}
    with pytest.raises(DetectorError, match="reference images of another shape"):
        type(detector).from_file(broken, header)
    for searched in (np.array([3, 10]), np.array([0.5]), np.empty(0, dtype=np.int64)):
        with pytest.raises(DetectorError, match=r"of no class|of the wrong kind"):
            type(detector).from_file({**arrays, "references.searched": searched}, header)
    nameless = {**header, "references": {**header["references"], "class_names": ["0"]}}
    with pytest.raises(DetectorError, match=r"a name a class \(expected 10, got 1\)"):
        type(detector).from_file(arrays, nameless)
    missing = {name: array for name, array in arrays.items() if name != "references.mean"}
    with pytest.raises(DetectorError, match=r"malformed header.*references.mean"):
        type(detector).from_file(missing, header)


class Bytes(nn.Module):
    """A network that wants 0 to 255."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(x / 255)
        return found


def test_a_scan_finds_out_what_no_flag_says(
    models: list[zoo_file.ZooModel], tmp_path: Path
) -> None:
    path = tmp_path / "bytes.onnx"
    spec = models[0].input_spec
    export_onnx(Bytes(models[0].torch_module()), spec, path)
    other = tmp_path / "other.onnx"
    export_onnx(Untrained(), spec, other)
    stated = tmp_path / "stated.onnx"
    stated.write_bytes(path.read_bytes())
    (tmp_path / "stated.litmus.toml").write_text("scale = 255.0\n")
    found, nothing, declared = scan([path, other, stated], detector="digits")
    assert isinstance(found, Scored)
    assert isinstance(declared, Scored)
    assert isinstance(nothing, Scored)
    assert found.score == pytest.approx(declared.score, abs=1e-4)
    assert any("the model wants its input 0 to 255" in note for note in found.notes)
    assert any(note.startswith("from reference images: scale 255") for note in found.notes)
    assert declared.verdict == found.verdict != "inconclusive"
    assert "from stated.litmus.toml: scale 255" in declared.notes
    assert not any("the model wants" in note for note in declared.notes)
    assert nothing.verdict == "inconclusive"
    assert any("not for the detector's classes" in note for note in nothing.notes)
