from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litmus.detectors import Detector, fit, last_layer, outliers, stamps
from litmus.detectors.fused import FusedDetector
from litmus.detectors.patterns import ULPDetector
from litmus.errors import UsageError
from litmus.evasion import statistics
from litmus.evasion.scores import attacked_parts, check_attackable, log_odds, penalty
from litmus.features import HEADS, POOLINGS, HeadName, Pooling
from litmus.formats import zoo_file
from litmus.zoo import Zoo
from litmus.zoo.spec import FineTuning

QUICK: dict[str, Any] = {"members": 2, "num_patterns": 3, "epochs": 2}


@pytest.fixture(scope="module")
def models(small_zoo: Zoo) -> list[zoo_file.ZooModel]:
    return [zoo_file.load(entry.path) for entry in small_zoo.split("test")[:4]]


@pytest.fixture(scope="module")
def fused(small_zoo: Zoo) -> FusedDetector:
    parts = ("ulp", "last_layer", "max_margin")
    few: dict[str, Any] = {"max_margin.steps": 3, "max_margin.starts": 1}
    detector = fit(small_zoo, "fused", parts=parts, **few, **QUICK)
    assert isinstance(detector, FusedDetector)
    return detector


def assert_the_same(detector: Detector, models: Sequence[zoo_file.ZooModel]) -> None:
    """NumPy's score and torch's are one, and the latter has a gradient to the first layer."""
    for model in models:
        module = model.torch_module()
        score = log_odds(detector, model)
        assert score(module).item() == pytest.approx(detector.score(model), rel=1e-6, abs=1e-6)
        first, *_, last = (each for name, each in module.named_parameters() if "weight" in name)
        for weights in (first, last):
            weights.requires_grad_(True)
        gradients = torch.autograd.grad(score(module), (first, last), allow_unused=True)
        assert gradients[1] is not None
        assert gradients[1].abs().sum() > 0
        reads_answers = detector.name != "last_layer"
        assert (gradients[0] is not None and bool(gradients[0].any())) is reads_answers
        module.requires_grad_(False)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_patterns_score_in_torch_as_in_numpy(
    head: HeadName, pooling: Pooling, small_zoo: Zoo, models: list[zoo_file.ZooModel]
) -> None:
    features = "logits" if pooling == "max" else "log_probs"
    detector = ULPDetector.fit(
        small_zoo,
        head=head,
        pooling=pooling,
        features=features,
        scale_per_model=pooling == "mean",
        **QUICK,
    )
    assert_the_same(detector, models)


@pytest.mark.parametrize("name", ["noise", "last_layer", "stamps"])
def test_other_detectors_score_in_torch_as_in_numpy(
    name: str, small_zoo: Zoo, models: list[zoo_file.ZooModel]
) -> None:
    settings: dict[str, Any] = {
        "noise": QUICK,
        "last_layer": {"members": 2},
        "stamps": {"members": 2, "steps": 5},
    }[name]
    assert_the_same(fit(small_zoo, name, **settings), models)


def test_of_a_fused_detector_what_has_no_gradient_stays_as_it_was(
    fused: FusedDetector, models: list[zoo_file.ZooModel]
) -> None:
    assert attacked_parts(fused) == ("ulp", "last_layer")
    assert_the_same(fused, models[:2])


def test_a_detector_without_a_gradient_is_refused(fused: FusedDetector) -> None:
    with pytest.raises(UsageError, match="no gradient that an attack could follow"):
        check_attackable(fused.parts["max_margin"])


@pytest.mark.parametrize("k", [4, 7])
def test_statistics_of_the_last_layer_are_the_same_in_torch(k: int) -> None:
    generator = np.random.default_rng(k)
    weights = generator.normal(size=(k, 5))
    expected = last_layer.layer_statistics(weights)
    found = statistics.layer_statistics(torch.tensor(weights))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    values = generator.normal(size=k)
    np.testing.assert_allclose(
        statistics.robust_scores(torch.tensor(values)).numpy(), outliers.robust_scores(values)
    )


def test_an_attacker_may_go_by_a_share_of_the_stamps(
    small_zoo: Zoo, models: list[zoo_file.ZooModel]
) -> None:
    detector = fit(small_zoo, "stamps", members=2, steps=5)
    score = log_odds(detector, models[0], share=0.1, seed=1)
    module = models[0].torch_module()
    first, second = score(module).item(), score(module).item()
    assert first != second
    again = log_odds(detector, models[0], share=0.1, seed=1)
    assert [again(module).item() for _ in range(2)] == [first, second]


@pytest.mark.parametrize("k", [2, 7])
def test_statistics_of_stamped_images_are_the_same_in_torch(k: int) -> None:
    generator = np.random.default_rng(k)
    own = np.array([0, k - 1])
    logits = [4 * generator.normal(size=(2, k)), 4 * generator.normal(size=(9, 2, k))]
    plain, shown = (v - np.log(np.exp(v).sum(axis=-1, keepdims=True)) for v in logits)
    expected = stamps.stamp_statistics(np.exp(plain), {"binary": np.exp(shown)}, own)
    found = statistics.stamp_statistics(
        torch.tensor(plain), [torch.tensor(shown)], torch.tensor(own)
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aim", ["low", "clean"])
def test_the_penalty_is_of_the_network_as_the_detector_sees_it(
    aim: Any, small_detector: ULPDetector, small_zoo: Zoo
) -> None:
    model = zoo_file.load(small_zoo.split("test")[0].path)
    score = torch.tensor(small_detector.score(model), dtype=torch.float64)
    tuning = FineTuning(model="", training={}, seed=0, detector="", weight=3.0, aim=aim)
    attack = penalty(small_detector, model, tuning)
    module = model.torch_module().train()
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = attack(module)
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # no statistics followed the patterns
    if aim == "low":
        expected = 3 * F.softplus(score)
    else:
        median = torch.tensor(np.median(small_detector.calibration.scores))
        expected = 3 * F.smooth_l1_loss(score, median)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
