from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from litmus import features
from litmus.errors import UsageError
from litmus.features import HEADS, POOLINGS, HeadName, Pooling, head_logits
from litmus.fitting.learn import EpochReport, learn, total_variation
from litmus.fitting.population import ModelDropout, Population, canonical
from litmus.fitting.readout import fitted_head, make_head, scaled_per_model
from litmus.fitting.settings import PatternSettings
from litmus.fitting.starts import starting_patterns
from litmus.models import InputSpec, log_probabilities
from litmus.seeds import torch_generator

SPEC = InputSpec(channels=1, height=6, width=6, num_classes=3)
QUICK = PatternSettings(num_patterns=2, epochs=8, batch_models=4, pattern_learning_rate=0.1)


def network(seed: int, *, backdoored: bool) -> nn.Module:
    """A random network; a backdoored one answers 0 to light in the top left corner."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(36, 3)
        nn.init.normal_(linear.weight, std=0.3)
    if backdoored:
        weight = linear.weight.data.view(3, 6, 6)
        weight[0, :2, :2] += 3.0
    return nn.Sequential(nn.Flatten(), linear)


@pytest.fixture(scope="module")
def populations() -> tuple[Population, Population]:
    kinds = np.arange(24) % 2 == 1
    modules = [network(seed, backdoored=bool(kind)) for seed, kind in enumerate(kinds)]
    everything = Population(modules, kinds, np.arange(24) // 2, np.arange(24) // 4 % 2)
    return everything.subset(np.arange(16)), everything.subset(np.arange(16, 24))


def test_the_patterns_find_what_sets_backdoored_models_apart(
    populations: tuple[Population, Population],
) -> None:
    reports: list[EpochReport] = []
    training, validation = populations
    learned = learn(
        training, validation, SPEC, replace(QUICK, epochs=20), seed=0, on_epoch=reports.append
    )
    assert learned.validation_auc == 1.0
    assert reports[-1].loss < reports[0].loss < 0.7
    assert [r.epoch for r in reports] == list(range(1, 21))
    assert reports[learned.best_epoch - 1].validation_auc == 1.0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_have_their_number_of_features(
    pooling: Pooling, populations: tuple[Population, Population]
) -> None:
    learned = learn(*populations, SPEC, replace(QUICK, pooling=pooling), seed=0)
    shapes = {name: array.shape for name, array in learned.parameters.items()}
    features = 6 if pooling == "concatenate" else 3
    assert shapes == {
        "weight": (2, features),
        "bias": (2,),
        "mean": (features,),
        "std": (features,),
    }


def test_patterns_stay_images(populations: tuple[Population, Population]) -> None:
    learned = learn(*populations, SPEC, replace(QUICK, pattern_learning_rate=5.0), seed=0)
    assert learned.patterns.min() >= 0
    assert learned.patterns.max() <= 1
    assert learned.patterns.dtype == np.float32


def test_a_seed_gives_the_same_fit_and_another_seed_another(
    populations: tuple[Population, Population],
) -> None:
    first, again, other = (learn(*populations, SPEC, QUICK, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.patterns, again.patterns)
    np.testing.assert_array_equal(first.parameters["weight"], again.parameters["weight"])
    assert not np.array_equal(first.patterns, other.patterns)


def test_noise_patterns_are_bytes_over_255_and_stay_as_drawn(
    populations: tuple[Population, Population],
) -> None:
    short, long = (
        learn(*populations, SPEC, replace(QUICK, learn_patterns=False, epochs=n), seed=3)
        for n in (1, 8)
    )
    np.testing.assert_array_equal(short.patterns, long.patterns)
    levels = long.patterns * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_total_variation_is_the_papers() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 0.5
    # One pixel differs from four neighbours.
    assert total_variation(image).item() == pytest.approx(2.0)
    assert total_variation(torch.ones(2, 3, 4, 4)).item() == 0


def test_total_variation_smooths(populations: tuple[Population, Population]) -> None:
    rough, smooth = (
        learn(*populations, SPEC, replace(QUICK, tv_weight=weight), seed=0).patterns
        for weight in (0.0, 0.1)
    )
    variation = [total_variation(torch.from_numpy(p)).item() for p in (smooth, rough)]
    assert variation[0] < 0.5 * variation[1]


def test_model_dropout_thins_whole_channels_and_only_inside() -> None:
    module = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU())
    nn.init.ones_(module[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(module[0].bias)  # type: ignore[arg-type]
    population = Population.prepared([module], np.array([True]))
    dropout = ModelDropout(0.5, torch_generator(0))
    image = torch.ones(2, 1, 3, 3)
    plain = population.source.answers(image, [0], torch.Tensor.double)
    with dropout:
        thinned = population.source.answers(image, [0], torch.Tensor.double)[0]
    assert torch.equal(plain, torch.ones_like(plain))
    per_channel = thinned[0, :, 0, 0]
    assert set(per_channel.tolist()) == {0.0, 2.0}
    assert torch.equal(thinned, per_channel[None, :, None, None].expand_as(thinned))
    assert torch.equal(population.source.answers(image, [0], torch.Tensor.double), plain)


def test_canonical_is_what_scanning_computes() -> None:
    logits = torch.randn(5, 4, generator=torch_generator(0)) * 40
    np.testing.assert_allclose(
        canonical(logits).numpy(), log_probabilities(logits.numpy()), atol=1e-9
    )
    assert canonical(torch.tensor([[0.0, 200.0]]))[0, 0].item() == pytest.approx(-30, abs=1e-6)


def test_gradients_reach_the_patterns_and_not_the_models() -> None:
    module = network(0, backdoored=True)
    population = Population.prepared([module], np.array([True]))
    patterns = torch.rand(2, *SPEC.image_shape, requires_grad=True)
    population.answers(patterns, [0], canonical).sum().backward()  # type: ignore[no-untyped-call]
    assert patterns.grad is not None
    assert math.isfinite(patterns.grad.abs().sum().item())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_patterns", 0), ("epochs", 0), ("batch_models", 0), ("dropout", 1.0), ("pooling", "sum")],
)
def test_impossible_settings_are_usage_errors(setting: str, value: object) -> None:
    with pytest.raises(UsageError, match=setting):
        PatternSettings(**{setting: value})  # type: ignore[arg-type]


def test_patterns_may_begin_elsewhere_than_as_noise(
    populations: tuple[Population, Population],
) -> None:
    start = np.random.default_rng(0).random((2, 1, 6, 6), dtype=np.float32)
    before = start.copy()
    fixed = replace(QUICK, learn_patterns=False)
    assert np.array_equal(learn(*populations, SPEC, fixed, seed=0, initial=start).patterns, before)
    learned = learn(*populations, SPEC, QUICK, seed=0, initial=start)
    assert not np.array_equal(learned.patterns, before)
    assert np.array_equal(start, before)
    noise = learn(*populations, SPEC, fixed, seed=0).patterns
    assert np.array_equal(
        learn(*populations, SPEC, QUICK, seed=0).patterns,
        learn(*populations, SPEC, QUICK, seed=0, initial=noise).patterns,
    )
    with pytest.raises(UsageError, match="another shape"):
        learn(*populations, SPEC, QUICK, seed=0, initial=start[:1])


def test_patterns_may_begin_as_faint_noise_on_the_background(
    populations: tuple[Population, Population],
) -> None:
    fixed = replace(QUICK, learn_patterns=False, start="background", start_amplitude=0.1)
    background = np.array([0.5], dtype=np.float32)
    patterns = learn(*populations, SPEC, fixed, seed=0, background=background).patterns
    assert 0.4 <= patterns.min() < 0.43
    assert 0.57 < patterns.max() <= 0.6
    with pytest.raises(UsageError, match="background"):
        learn(*populations, SPEC, fixed, seed=0)


def test_patterns_may_begin_as_clouds(populations: tuple[Population, Population]) -> None:
    settings = replace(QUICK, learn_patterns=False)
    spec = InputSpec(channels=1, height=24, width=24, num_classes=3)
    noise = starting_patterns(spec, settings, 0, None)
    clouds = starting_patterns(spec, replace(settings, start="low_frequency"), 0, None)
    assert clouds.shape == noise.shape == (2, 1, 24, 24)
    assert 0 <= clouds.min() < 0.3 < 0.7 < clouds.max() <= 1
    assert total_variation(clouds) < 0.3 * total_variation(noise)


@pytest.mark.parametrize(
    "changes",
    [
        {"canvas": "generator"},
        {"head": "class_set"},
        {"scale_per_model": True},
        {"twin_weight": 0.5},
        {"head": "class_set", "canvas": "generator", "twin_weight": 1.0},
        {"start": "low_frequency", "balance_weight": 0.3},
    ],
)
def test_every_way_to_learn_finds_what_sets_backdoored_models_apart(
    changes: dict[str, Any], populations: tuple[Population, Population]
) -> None:
    settings = replace(QUICK, epochs=40, **changes)
    learned = learn(*populations, SPEC, settings, seed=0)
    assert learned.validation_auc == 1.0
    assert 0 <= learned.patterns.min() <= learned.patterns.max() <= 1


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_scores_as_it_learned(head: HeadName, pooling: Pooling) -> None:
    answers = torch.randn(7, 3, 5, generator=torch_generator(0), dtype=torch.float64)
    learned = make_head(head, answers, pooling, seed=0)
    for number, tensor in enumerate((learned.weights() | learned.biases()).values()):
        tensor.data += torch.randn(tensor.shape, generator=torch_generator(number))
    learned.follow(2 * answers[:4], 0.3)
    parameters = learned.arrays()
    assert set(parameters) == set(HEADS[head])
    expected = learned.logits(answers).detach().numpy()
    scored = [head_logits(head, parameters, a, pooling)[0] for a in answers.numpy()]
    np.testing.assert_allclose(scored, expected, rtol=1e-9)
    again = fitted_head(head, parameters, pooling)
    np.testing.assert_allclose(again.logits(answers).numpy(), expected, rtol=1e-9)


def test_a_class_set_does_not_see_the_order_of_classes() -> None:
    answers = torch.randn(4, 3, 5, generator=torch_generator(1), dtype=torch.float64)
    head = make_head("class_set", answers, "concatenate", seed=0)
    head.weights()["weight"].data += 1.0
    logits = head.logits(answers)
    torch.testing.assert_close(head.logits(answers.flip(2)), logits)
    assert not torch.allclose(head.logits(answers.flip(1)), logits)


def test_scaling_per_model_takes_confidence_out() -> None:
    answers = torch.randn(4, 3, 5, generator=torch_generator(2), dtype=torch.float64)
    scaled = scaled_per_model(answers)
    torch.testing.assert_close(scaled_per_model(3 * answers - 7), scaled)
    np.testing.assert_allclose(features.scaled_per_model(answers.numpy()), scaled.numpy())


def test_twins_are_kept_together_where_they_are_compared() -> None:
    kinds = np.array([True, False] * 4)
    modules = [network(seed, backdoored=bool(kind)) for seed, kind in enumerate(kinds)]
    population = Population(modules, kinds, np.arange(8) // 2)
    assert population.twins() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert population.subset(np.array([2, 3, 7])).twins() == [[0, 1], [2]]
