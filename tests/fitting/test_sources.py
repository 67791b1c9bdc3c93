from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from benchmarks.random_zoo import random_zoo
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.detectors import load_detector
from litmus.detectors.patterns import ULPDetector
from litmus.fitting import PatternSettings, Population, sources
from litmus.fitting.dropout import ModelDropout
from litmus.fitting.learn import learn
from litmus.fitting.population import canonical
from litmus.fitting.ranks import Ranks, Shares
from litmus.fitting.sources import Held, Source, Streamed, prepared
from litmus.models import InputSpec
from litmus.seeds import torch_generator
from litmus.zoo import Zoo
from litmus.zoo.recipe import parse_recipe

SPEC = InputSpec(channels=1, height=28, width=28, num_classes=10)
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("vgg", {"width": 2, "stem_stride": 2}),
    ("densenet", {"growth": 2, "blocks": (1,), "stem_stride": 4}),
    ("cnn", {"channels": (4,), "hidden": 0}),
]
QUICK = PatternSettings(num_patterns=2, epochs=2, batch_models=5)


def stacks_of(source: Source) -> list[nn.Module]:
    return list(source._threads.__dict__.get("stacks", {}).values())


def networks(count: int) -> list[nn.Module]:
    made = []
    for seed in range(count):
        name, options = NETWORKS[seed % 3]
        made.append(prepared(ARCHITECTURES[name](**options).build(SPEC, seed=seed)))
    return made


def test_streamed_models_learn_the_same_patterns_as_models_in_memory() -> None:
    kinds = np.arange(24) % 2 == 1
    learned = []
    for source in (Held(networks(24)), Streamed(networks(24))):
        population = Population(source, kinds)
        training, validation = (population.subset(np.arange(a, b)) for a, b in ((0, 18), (18, 24)))
        learned.append(learn(training, validation, SPEC, QUICK, seed=0))
    np.testing.assert_array_equal(learned[0].patterns, learned[1].patterns)
    for name, array in learned[0].parameters.items():
        np.testing.assert_array_equal(array, learned[1].parameters[name])


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("make", [Held, Streamed])
def test_stacks_answer_as_each_network_does(
    make: type[Held | Streamed], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three architectures in turn, two chunks, the second one shorter: with the same dropout."""
    index = [*range(20, 0, -1), 3]
    found = []
    for small in (sources._SMALL, 0):
        monkeypatch.setattr(sources, "_SMALL", small)
        source = make(networks(21))
        patterns = torch.rand(2, *SPEC.image_shape, generator=torch_generator(1)).requires_grad_()
        dropout = ModelDropout(rate, torch_generator(0))
        with dropout:
            answers = source.answers(patterns, index, canonical)
        answers.square().sum().backward()  # type: ignore[no-untyped-call]
        assert bool(stacks_of(source)) == (small > 0)
        assert patterns.grad is not None
        found.append((answers.detach(), patterns.grad, dropout.draw([torch.Size((1, 5))])[0]))
    for stacked, alone in zip(*found, strict=True):
        assert stacked.abs().max() > 0
        torch.testing.assert_close(stacked, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "stacks"),
    [
        ("vgg", {"width": 8, "stem_stride": 2}, True),
        ("vgg", {"width": 16, "stem_stride": 2}, False),
        ("mlp", {"hidden": (16,)}, False),
    ],
)
def test_small_networks_that_convolve_are_stacked(
    name: str, options: dict[str, Any], stacks: bool
) -> None:
    made = [prepared(ARCHITECTURES[name](**options).build(SPEC, seed=seed)) for seed in (0, 1)]
    source = Held(made)
    source.answers(torch.rand(1, *SPEC.image_shape), [0, 1], canonical)
    assert bool(stacks_of(source)) == stacks


def test_stacks_keep_no_weights() -> None:
    """There is one for each number of models: they would take up to 136 times a network's."""
    source = Held(networks(6))
    source.answers(torch.rand(1, *SPEC.image_shape), range(6), canonical)
    weights = [t for stack in stacks_of(source) for t in stack.state_dict().values()]
    assert weights
    assert all(tensor.is_meta for tensor in weights)


@pytest.mark.parametrize("small", [sources._SMALL, 0])
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_have_their_channels_last(
    small: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU takes up to twice as long where they come first."""
    monkeypatch.setattr(sources, "_SMALL", small)
    spec = InputSpec(channels=channels, height=28, width=28, num_classes=10)
    options: dict[str, Any] = {"channels": (4, 8)}
    made = [prepared(ARCHITECTURES["cnn"](**options).build(spec, seed=seed)) for seed in range(2)]
    seen: list[torch.Tensor] = []
    for layer in (layer for module in made for layer in module.modules()):
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    source = Held(made)
    source.answers(torch.rand(2, *spec.image_shape), [0], canonical)  # what is tried counts not
    seen.clear()
    source.answers(torch.rand(2, *spec.image_shape), [0, 1], canonical)
    maps = [tensor for tensor in seen if tensor.dim() == 4 and len(tensor) == 2]
    assert len(maps) == (2 if small else 4)
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in maps)


def test_what_has_no_stacked_form_is_asked_by_itself() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    made = [nn.Sequential(nn.Conv2d(1, 2, 28), Doubled(), nn.Flatten()) for _ in range(2)]
    patterns = torch.rand(3, *SPEC.image_shape)
    source = Held([prepared(module) for module in made])
    answers = source.answers(patterns, [1, 0], torch.Tensor.double)
    expected = torch.stack([made[1](patterns), made[0](patterns)]).double()
    torch.testing.assert_close(answers, expected)


def test_streamed_models_are_read_shard_by_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for, the reader is one shard ahead at most."""
    streamed = Streamed(networks(40))
    read: list[int] = []
    content = streamed._content

    def noted(place: int) -> bytearray:
        read.append(place)
        return content(place)

    monkeypatch.setattr(streamed, "_content", noted)
    patterns = torch.rand(1, *SPEC.image_shape)
    for done, network in enumerate(streamed.networks(range(40)), 1):
        network(patterns)
        assert len(read) <= done + 2 * 16
    assert read == list(range(40))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    from tests.conftest import tiny_recipe_table

    recipe = parse_recipe(tiny_recipe_table(twins=16, test_share=0.25), "tiny")
    return random_zoo(recipe, SPEC, tmp_path_factory.mktemp("zoo"))


def test_a_zoo_above_its_memory_is_streamed(untrained: Zoo) -> None:
    entries = untrained.split("train")
    held, streamed = (Population.load(entries, memory=memory) for memory in (2**30, 0))
    assert isinstance(held.source, Held)
    assert isinstance(streamed.source, Streamed)
    patterns = torch.rand(3, *SPEC.image_shape)
    index = [5, 0, 23, 7]
    assert torch.equal(
        held.answers(patterns, index, canonical), streamed.answers(patterns, index, canonical)
    )


def test_a_process_asks_its_share_in_stacks(untrained: Zoo, tmp_path: Path) -> None:
    entries = untrained.split("train")
    patterns = torch.rand(2, *SPEC.image_shape)
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        own = Population.load(entries).source
        shares = Shares(own, [entry.spec for entry in entries], Ranks())
        found = []
        for source in (shares, Population.load(entries).source):
            with ModelDropout(0.4, torch_generator(0)):
                found.append(source.answers(patterns, [5, 0, 7], canonical))
    finally:
        dist.destroy_process_group()
    assert stacks_of(own)
    assert torch.equal(*found)


def test_two_processes_fit_what_one_does(untrained: Zoo, tmp_path: Path) -> None:
    """Batches of three models: at times one process holds all of them, or none."""
    settings: dict[str, Any] = {"members": 2, "epochs": 2, "batch_models": 3, "num_patterns": 2}
    alone = ULPDetector.fit(untrained, **settings)
    file = tmp_path / "shared.litmus"
    words = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "litmus", "fit", str(untrained.path)),
            *("-o", str(file), "--no-references", "--no-learning-curve", *words),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    shared = load_detector(file)
    assert isinstance(shared, ULPDetector)
    for one, other in zip(alone.members, shared.members, strict=True):
        np.testing.assert_allclose(one.patterns, other.patterns, atol=1e-4)
        for name, array in one.parameters.items():
            np.testing.assert_allclose(array, other.parameters[name], atol=1e-3)
