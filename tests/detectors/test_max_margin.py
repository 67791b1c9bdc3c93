from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import nn

from litmus.detectors import DETECTORS, fit, load_detector
from litmus.detectors.max_margin import MaxMarginDetector, margin_statistics
from litmus.errors import ModelError, UnsupportedModelError, UsageError
from litmus.formats import onnx_file, zoo_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.torch_gradients import TorchGradients
from litmus.formats.torch_model import TorchModel
from litmus.inversion import MarginSettings, maximum_margins
from litmus.models import InputSpec
from litmus.zoo import Zoo

FAST: dict[str, Any] = {"steps": 12, "starts": 2}
NAMES = MaxMarginDetector.statistic_names
SPEC = InputSpec(channels=1, height=3, width=4, num_classes=5)


def linear(spec: InputSpec = SPEC, seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, spec.num_classes))
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


def margins_of(
    module: nn.Module, settings: MarginSettings, *, seed: int = 0
) -> NDArray[np.float64]:
    (layer,) = (each for each in module.modules() if isinstance(each, nn.Linear))
    spec = replace(SPEC, num_classes=layer.out_features)
    return maximum_margins(TorchGradients(module, spec), settings, seed=seed)


def optima(module: nn.Sequential) -> list[float]:
    """Each class's largest margin over the box, by a linear program: maximise t <= z_c - z_j."""
    layer = module[1]
    assert isinstance(layer, nn.Linear)
    w, b = layer.weight.double().numpy(), layer.bias.double().numpy()
    k, f = w.shape
    found = []
    for c in range(k):
        others = [j for j in range(k) if j != c]
        rows = np.hstack([w[others] - w[c], np.ones((k - 1, 1))])
        limits = [(0, 1)] * f + [(None, None)]
        result = linprog([0.0] * f + [-1.0], A_ub=rows, b_ub=b[c] - b[others], bounds=limits)
        found.append(-result.fun)
    return found


@pytest.mark.parametrize("k", [2, 5])
def test_a_linear_model_gives_the_optimum_over_the_box(k: int) -> None:
    spec = InputSpec(channels=1, height=3, width=4, num_classes=k)
    module = linear(spec)
    margins = margins_of(module, MarginSettings(steps=300))
    expected = np.array(optima(module))
    assert (margins <= expected + 1e-4).all()
    np.testing.assert_allclose(margins, expected, rtol=0.02)
    # With two classes every pixel goes to the end where it counts.
    if k == 2:
        layer = module[1]
        assert isinstance(layer, nn.Linear)
        difference = (layer.weight[0] - layer.weight[1]).double()
        bias = float(layer.bias[0] - layer.bias[1])
        assert margins[0] == pytest.approx(float(difference.clamp(min=0).sum()) + bias, abs=1e-4)


def test_margins_are_the_same_again_and_a_log_softmax_changes_nothing() -> None:
    settings = MarginSettings(**FAST)
    module = linear()
    margins = margins_of(module, settings, seed=1)
    np.testing.assert_array_equal(margins, margins_of(module, settings, seed=1))
    assert not np.array_equal(margins, margins_of(module, settings, seed=2))
    behind = nn.Sequential(module, nn.LogSoftmax(dim=1))
    np.testing.assert_allclose(margins_of(behind, settings, seed=1), margins, rtol=1e-3)


def test_classes_in_another_order_have_the_same_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MarginSettings(**FAST)
    module, order = linear(), torch.tensor([3, 0, 4, 1, 2])
    margins = margins_of(module, settings)
    permuted = linear()
    layer = permuted[1]
    assert isinstance(layer, nn.Linear)
    layer.weight.data, layer.bias.data = layer.weight[order], layer.bias[order]
    np.testing.assert_allclose(margins_of(permuted, settings), margins[order.numpy()], rtol=1e-4)
    # Nor does it count how many images go through the network at a time.
    monkeypatch.setattr("litmus.inversion.margins._CHUNK", 3)
    np.testing.assert_allclose(margins_of(module, settings), margins, rtol=1e-4)


@pytest.mark.parametrize("options", [{"steps": 0}, {"starts": 0}, {"learning_rate": 0.0}])
def test_impossible_settings_are_named(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is impossible"):
        MarginSettings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [2, 3, 10, 43])
@given(seed=st.integers(0, 100), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_the_statistics_know_no_order_and_only_one_knows_the_scale(
    k: int, seed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    margins = random.uniform(1, 9, size=k)
    expected = margin_statistics(margins)
    assert expected.shape == (len(NAMES),)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(margin_statistics(random.permutation(margins)), expected)
    scaled = margin_statistics(scale * margins)
    np.testing.assert_allclose(scaled[:-1], expected[:-1], atol=1e-6)
    assert scaled[-1] == pytest.approx(expected[-1] + np.log(scale))


def test_a_planted_class_stands_out() -> None:
    margins = np.random.default_rng(0).normal(20, 3, size=10)
    before = dict(zip(NAMES, margin_statistics(margins), strict=True))
    margins[4] = 60
    after = dict(zip(NAMES, margin_statistics(margins), strict=True))
    for name in (
        "log largest / median",
        "log largest / second",
        "score of the largest",
        "gamma score of the largest",
    ):
        assert after[name] > before[name] + 0.3
    assert after["log second / median"] == pytest.approx(before["log second / median"], abs=0.3)


@pytest.mark.parametrize("margins", [np.full(4, -3.0), np.zeros(3), np.full(5, 7.0)])
def test_classes_that_are_alike_or_never_reached_have_statistics(
    margins: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    statistics = margin_statistics(margins)
    assert np.isfinite(statistics).all()
    assert not statistics[:7].any()


@pytest.fixture(scope="module")
def fitted(small_zoo: Zoo) -> MaxMarginDetector:
    detector = fit(small_zoo, "max_margin", members=2, **FAST)
    assert isinstance(detector, MaxMarginDetector)
    return detector


def test_it_fits_and_says_how(fitted: MaxMarginDetector) -> None:
    assert DETECTORS["max_margin"] is MaxMarginDetector
    assert MaxMarginDetector.needs_gradients
    assert not MaxMarginDetector.needs_images
    full = {**FAST, "learning_rate": 0.4}
    assert fitted.settings == full
    assert fitted.scope["settings"] == {"models": 0, "weight_decay": 0.1, **full}
    full = {"steps": 50, "starts": 4, "learning_rate": 0.4}
    assert MaxMarginDetector.defaults().items() >= full.items()


def test_a_module_in_memory_is_scored_and_left_alone(
    fitted: MaxMarginDetector, small_zoo: Zoo, tmp_path: Path
) -> None:
    path = tmp_path / "margin.litmus"
    path.write_bytes(fitted.to_bytes())
    loaded = load_detector(path)
    model = zoo_file.load(small_zoo.entries[0].path)
    module = model.torch_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    measured = loaded.measure(TorchModel(module, small_zoo.input_spec))
    assert measured == fitted.measure(model)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_models_that_it_can_not_read_are_named(fitted: MaxMarginDetector, small_zoo: Zoo) -> None:
    spec = small_zoo.input_spec

    class NoGradients:
        input_spec = spec
        outputs = "logits"

    with pytest.raises(UnsupportedModelError, match="needs gradients"):
        fitted.measure(NoGradients())  # type: ignore[arg-type]
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(UnsupportedModelError, match="reads logits"):
        fitted.measure(TorchModel(module, spec, outputs="probabilities"))
    broken = nn.Linear(784, 10)
    nn.init.constant_(broken.weight, torch.nan)
    with pytest.raises(ModelError, match="not numbers"):
        fitted.measure(TorchModel(nn.Sequential(nn.Flatten(), broken), spec))
    with pytest.raises(UsageError, match=r"unknown setting .* got step"):
        fit(small_zoo, "max_margin", step=3)


def test_an_onnx_file_has_the_margins_of_its_network(small_zoo: Zoo, tmp_path: Path) -> None:
    model = zoo_file.load(small_zoo.entries[0].path)
    exported = export_onnx(model, small_zoo.input_spec, tmp_path / "m.onnx")
    detector = MaxMarginDetector.uncalibrated(small_zoo.input_spec, **FAST)
    margins = detector.margins(onnx_file.load(exported))
    np.testing.assert_allclose(margins, detector.margins(model), rtol=1e-3)
