from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litmus.errors import UsageError
from litmus.formats.torch_gradients import TorchGradients
from litmus.inversion import ClassImages, PatchSettings, invert_patches
from litmus.models import Gradients, InputSpec

CLASSES = 4
PAIRS = [(s, t) for s in range(CLASSES) for t in range(CLASSES) if s != t]


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """A small network with random weights: some pairs are easier than others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(8 * 9, CLASSES),
        )  # fmt: skip
        for parameter in net.parameters():
            parameter.data *= 2
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(module: nn.Module) -> Gradients:
    spec = InputSpec(channels=1, height=12, width=12, num_classes=CLASSES)
    return TorchGradients(module, spec)


@pytest.fixture(scope="module")
def clean() -> ClassImages:
    generator = torch.Generator().manual_seed(1)
    return ClassImages(images=torch.rand(CLASSES, 10, 1, 12, 12, generator=generator).numpy())


def settings(**changes: Any) -> PatchSettings:
    return PatchSettings(**{"size": 4, "batch_images": 5, "images_per_class": 10, **changes})


def test_all_pairs_at_once_equal_the_plain_loop(network: Gradients, clean: ClassImages) -> None:
    plain = settings(keep=1, steps=30)
    together = invert_patches(network, clean, plain)
    alone = np.full((CLASSES, CLASSES), np.inf)
    for source, target in PAIRS:
        one = invert_patches(network, clean, plain, pairs=[(source, target)])
        alone[source, target] = one.losses[source, target]
        assert np.isfinite(one.losses).sum() == 1
    np.testing.assert_allclose(together.losses, alone, atol=1e-4, rtol=1e-3)
    best = divmod(int(alone.argmin()), CLASSES)
    assert (together.source_class, together.target_class) == best


def test_it_equals_a_loop_with_torchs_adam(
    module: nn.Module, network: Gradients, clean: ClassImages
) -> None:
    """One pair, written out by hand: draws of images and places are the function's own."""
    from litmus.attacks.places import PLACES
    from litmus.seeds import torch_generator

    patch = torch.full((1, 4, 4), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([patch], lr=0.1)

    def stamped(index: torch.Tensor, step: int) -> torch.Tensor:
        generator = torch_generator(7, "inversion", step)
        torch.randperm(10, generator=generator)
        places = PLACES["corner"](len(index), 12, 12, 4, generator)
        images = torch.from_numpy(clean.images[2])[index].clone()
        for i, (row, column) in enumerate(places.tolist()):
            images[i, :, row : row + 4, column : column + 4] = patch
        return images

    for step in range(1, 21):
        index = torch.randperm(10, generator=torch_generator(7, "inversion", step))[:5]
        loss = F.cross_entropy(module(stamped(index, step)), torch.full((5,), 1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        patch.data.clamp_(0, 1)
    with torch.inference_mode():
        expected = F.cross_entropy(module(stamped(torch.arange(10), 0)), torch.full((10,), 1))
    found = invert_patches(network, clean, settings(keep=1, steps=20), seed=7, pairs=[(2, 1)])
    np.testing.assert_allclose(found.patch, patch.detach().numpy(), atol=1e-4)
    assert found.loss == pytest.approx(expected.item(), rel=1e-4)


def test_halving_drops_pairs_and_keeps_the_best(network: Gradients, clean: ClassImages) -> None:
    full = invert_patches(network, clean, settings(keep=1, steps=60))
    halved = invert_patches(network, clean, settings(steps=60))
    assert np.isfinite(halved.losses).sum() < np.isfinite(full.losses).sum() == len(PAIRS)
    kept = np.isfinite(halved.losses)
    # A pair that is kept goes the same way as without halving.
    np.testing.assert_allclose(halved.losses[kept], full.losses[kept], atol=1e-4, rtol=1e-3)
    assert (halved.source_class, halved.target_class) == (full.source_class, full.target_class)


def test_a_patch_lowers_the_loss_and_stays_an_image(network: Gradients, clean: ClassImages) -> None:
    few = invert_patches(network, clean, settings(keep=1, steps=1))
    many = invert_patches(network, clean, settings(keep=1, steps=40))
    off_diagonal = ~np.eye(CLASSES, dtype=bool)
    assert (many.losses < few.losses)[off_diagonal].all()
    assert many.patch.shape == (1, 4, 4)
    assert many.patch.min() >= 0
    assert many.patch.max() <= 1
    assert 0 <= many.success <= 1


def test_the_seed_draws_images_and_places(network: Gradients, clean: ClassImages) -> None:
    runs = [invert_patches(network, clean, settings(steps=5), seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    assert not np.array_equal(runs[0].losses, runs[2].losses)


@pytest.mark.parametrize(
    ("options", "rungs", "pair_steps"),
    [
        ({"keep": 1, "steps": 100}, [], 9000),
        ({"keep": 0.5, "steps": 100, "first_rung": 25}, [25, 50], 90 * 25 + 45 * 25 + 23 * 50),
        ({"keep": 1 / 3, "steps": 100, "first_rung": 4}, [4, 12, 36], 360 + 240 + 240 + 256),
        ({"keep": 0.5, "steps": 3, "first_rung": 4}, [], 270),
    ],
)
def test_rungs_and_their_cost(options: dict[str, Any], rungs: list[int], pair_steps: int) -> None:
    chosen = PatchSettings(**options)
    assert chosen.rungs() == rungs
    assert chosen.pair_steps(90) == pair_steps


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"size": 0}, {"keep": 0.0}, {"keep": 1.5}, {"place": "moon"}, {"first_rung": 0}],
)
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"impossible|unknown place"):
        PatchSettings(**options)
