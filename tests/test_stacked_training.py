from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
import torch
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.architectures.cnn import CNN
from litmus.datasets import ImageDataset, Split
from litmus.errors import UsageError
from litmus.seeds import torch_generator
from litmus.stacked_training import StackedData, train_stacked
from litmus.training import TrainingSpec, augmented, draws, train
from tests.conftest import random_split

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "adam": (
        "vgg",
        {"width": 3},
        {"weight_decay": 0.1, "shift": 2, "flip": True, "label_smoothing": 0.1},
    ),
    "sgd": ("resnet", {"width": 3}, {"optimizer": "sgd", "weight_decay": 0.01, "epochs": 2}),
    "rmsprop": ("mlp", {"hidden": (9,), "dropout": 0.4}, {"optimizer": "rmsprop"}),
    "constant": ("nin", {"channels": (4, 4), "dropout": 0.3}, {"schedule": "constant"}),
    "stopped": ("vgg_whitened", {"stem": 4, "channels": (3,)}, {"epochs": 2, "stop": 0.6}),
}


@pytest.mark.parametrize("case", CASES)
def test_stacked_training_is_separate_training(case: str, tiny_dataset: ImageDataset) -> None:
    """Own weights, images (and so steps), order, augmentation, dropout and schedule."""
    name, options, training = CASES[case]
    architecture = ARCHITECTURES[name](**options)
    spec = TrainingSpec(**{"batch_size": 8, "peak_learning_rate": 0.003, **training})
    splits = [
        random_split(tiny_dataset.input_spec, per_class=per_class, seed=per_class)
        for per_class in (20, 13, 17)
    ]
    alone = [architecture.build(tiny_dataset.input_spec, seed=seed) for seed in range(3)]
    for module, split in zip(alone, splits, strict=True):
        architecture.initialise(module, split.images)
    before = [copy.deepcopy(module.state_dict()) for module in alone]
    stacked = copy.deepcopy(alone)
    steps = [train(m, s, spec, seed=i) for i, (m, s) in enumerate(zip(alone, splits, strict=True))]
    assert len(set(steps)) == 3
    assert train_stacked(stacked, StackedData.of(splits), spec, seeds=range(3)) == steps
    for start, one, other in zip(before, alone, stacked, strict=True):
        assert _distance(one.state_dict(), other.state_dict()) < 2e-3 * _distance(
            start, one.state_dict()
        )
        assert not other.training


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    squares = [(one[key].double() - other[key].double()).square().sum() for key in one]
    return float(torch.stack(squares).sum().sqrt())


def test_images_that_networks_share_lie_there_once(tiny_dataset: ImageDataset) -> None:
    spec = TrainingSpec(batch_size=8)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    parts = [order[:30], order[20:50]]
    shared = StackedData(
        images=tiny_dataset.train.images,
        positions=parts,
        labels=[tiny_dataset.train.labels[part] for part in parts],
    )
    results = []
    for data in (shared, StackedData.of([tiny_dataset.train[part] for part in parts])):
        modules = [CNN(channels=(4,)).build(tiny_dataset.input_spec, seed=seed) for seed in (0, 1)]
        train_stacked(modules, data, spec, seeds=(0, 1))
        results.append([module.state_dict() for module in modules])
    for one, other in zip(*results, strict=True):
        assert _distance(one, other) == 0


def test_batches_of_different_sizes_are_refused(tiny_dataset: ImageDataset) -> None:
    modules: list[nn.Module] = [nn.Linear(1, 1), nn.Linear(1, 1)]
    few = tiny_dataset.train[torch.arange(5)]
    with pytest.raises(UsageError, match="batches of different sizes"):
        train_stacked(
            modules,
            StackedData.of([tiny_dataset.train, few]),
            TrainingSpec(batch_size=8),
            seeds=(0, 1),
        )


def test_the_batches_of_a_seed_are_a_promise() -> None:
    """Each model of each zoo that there is was trained on these; no change may touch them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 9, 8), generator=generator).to(torch.uint8)
    data = Split(images=images, labels=torch.arange(50) % 5)
    spec = TrainingSpec(epochs=2, batch_size=16, shift=2, flip=True)
    digest = hashlib.sha256()
    for draw in draws(len(data), spec, torch_generator(3, "batches")):
        batch = augmented(data.images[draw.positions], draw, spec)
        digest.update(batch.contiguous().numpy().tobytes())
        digest.update(data.labels[draw.positions].numpy().tobytes())
    # Taken before stacked training was there.
    assert digest.hexdigest() == "2eb21504a8c579ca626bd704ee68cfe653530443334dbcc77c40a506807ff481"
