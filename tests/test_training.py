from __future__ import annotations

from typing import Any

import pytest
import torch

from litmus.architectures.cnn import CNN
from litmus.architectures.vgg import VGG
from litmus.datasets import ImageDataset, Split
from litmus.models import InputSpec
from litmus.training import TrainingSpec, predict, train
from tests.conftest import random_split

SPEC = InputSpec(channels=1, height=8, width=8, num_classes=3)


def trained(data: Split, *, seed: int = 0, **options: Any) -> tuple[torch.nn.Module, int]:
    module = VGG(width=2).build(SPEC, seed=0)
    return module, train(module, data, TrainingSpec(batch_size=8, **options), seed=seed)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd"},
        {"optimizer": "rmsprop", "peak_learning_rate": 0.001},
        {"schedule": "constant"},
        {"shift": 2, "flip": True, "epochs": 2},
        {"label_smoothing": 0.1},
    ],
)
def test_the_arguments_alone_decide_the_weights(options: dict[str, Any]) -> None:
    data, state = random_split(SPEC, per_class=10), torch.get_rng_state()
    first, _ = trained(data, **options)
    torch.manual_seed(99)
    again, _ = trained(data, **options)
    torch.set_rng_state(state)
    other, _ = trained(data, seed=1, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert not same(first, other)
    assert not first.training


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "steps"),
    [(30, 8, 1, 3), (30, 8, 4, 12), (32, 8, 1, 4), (5, 8, 3, 3), (60, 60, 1, 1)],
)
def test_steps_are_whole_batches(images: int, batch_size: int, epochs: int, steps: int) -> None:
    spec = TrainingSpec(batch_size=batch_size, epochs=epochs)
    assert spec.steps(images) == steps
    data = random_split(SPEC, per_class=20)[torch.arange(images)]
    module = VGG(width=2).build(SPEC, seed=0)
    assert train(module, data, spec, seed=0) == steps


@pytest.mark.parametrize(("images", "warmup"), [(40, 0.2), (16, 0.5), (80, 0.1)])
def test_a_warmup_of_one_step_is_no_division_by_zero(images: int, warmup: float) -> None:
    data = random_split(SPEC, per_class=30)[torch.arange(images)]
    module, steps = trained(data, warmup=warmup)
    assert steps * warmup == 1
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_every_image_of_an_epoch_is_seen_once() -> None:
    data = random_split(SPEC, per_class=16)
    seen: list[torch.Tensor] = []
    module = VGG(width=2).build(SPEC, seed=0)
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train(module, data, TrainingSpec(batch_size=8, epochs=2), seed=0)
    assert [len(batch) for batch in seen] == [8] * 12
    epochs = [torch.cat(seen[:6]), torch.cat(seen[6:])]
    pixels = data.images.float() / 255
    for images in epochs:
        assert images.dtype == torch.float32
        same_image = (images[:, None] == pixels[None]).flatten(2).all(dim=2)
        assert (same_image.sum(dim=0) == 1).all()
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(("options", "moved"), [({"shift": 2}, 2), ({"shift": 0}, 0)])
def test_shift_moves_the_image_and_fills_with_black(options: dict[str, Any], moved: int) -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., 4, 4] = 255
    data = Split(images=image.repeat(400, 1, 1, 1), labels=torch.arange(400) % 3)
    seen: list[torch.Tensor] = []
    module = VGG(width=2).build(SPEC, seed=0)
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train(module, data, TrainingSpec(batch_size=100, **options), seed=0)
    places = torch.cat(seen)[:, 0].nonzero()[:, 1:]
    wanted = [[r, c] for r in range(4 - moved, 5 + moved) for c in range(4 - moved, 5 + moved)]
    assert torch.unique(places, dim=0).tolist() == wanted
    assert torch.cat(seen).sum() == 400


def test_flip_mirrors_half_of_the_images() -> None:
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., 1, 0] = 255
    data = Split(images=image.repeat(400, 1, 1, 1), labels=torch.arange(400) % 3)
    seen: list[torch.Tensor] = []
    module = VGG(width=2).build(SPEC, seed=0)
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train(module, data, TrainingSpec(batch_size=100, flip=True), seed=0)
    images = torch.cat(seen)[:, 0]
    assert (images[:, 1, 0] + images[:, 1, 7] == 1).all()
    assert images[:, 1, 7].mean().item() == pytest.approx(0.5, abs=0.08)


def test_it_learns(digits: ImageDataset) -> None:
    module = VGG(width=4, stem_stride=2).build(digits.input_spec, seed=0)
    untrained = (predict(module.eval(), digits.test.images) == digits.test.labels).float().mean()
    steps = train(module, digits.train, TrainingSpec(batch_size=32), seed=0)
    learned = (predict(module, digits.test.images) == digits.test.labels).float().mean()
    assert steps == 1352 // 32
    assert untrained < 0.3
    assert learned > 0.8


def test_predictions_do_not_depend_on_the_batch() -> None:
    module, _ = trained(random_split(SPEC, per_class=10))
    images = random_split(SPEC, per_class=234, seed=5).images
    predictions = predict(module, images)
    assert predictions.dtype == torch.int64
    assert predictions.shape == (702,)
    one_by_one = torch.cat([predict(module, image[None]) for image in images[490:510]])
    assert torch.equal(predictions[490:510], one_by_one)


def test_a_network_that_drops_while_it_learns_is_a_function_of_its_seed() -> None:
    data = random_split(SPEC, per_class=10)

    def weights(seed: int) -> torch.nn.Module:
        module = CNN(channels=(4,), dropout=0.5, hidden=8).build(SPEC, seed=0)
        train(module, data, TrainingSpec(batch_size=8), seed=seed)
        return module

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert same(first, weights(0))
    torch.set_rng_state(state)


def test_stopping_early_takes_the_same_first_steps() -> None:
    data = random_split(SPEC, per_class=16)
    spec = TrainingSpec(batch_size=8, epochs=2, stop=0.5, schedule="constant")
    assert (spec.planned_steps(48), spec.steps(48)) == (12, 6)
    stopped, steps = trained(data, epochs=2, stop=0.5, schedule="constant")
    one_epoch, _ = trained(data, epochs=1, schedule="constant")
    assert steps == 6
    assert same(stopped, one_epoch)
    # With a cycle the plan is that of the whole, so that the learning rate is still high.
    assert not same(trained(data, epochs=2, stop=0.5)[0], trained(data, epochs=1)[0])


def test_a_constant_schedule_keeps_the_learning_rate() -> None:
    data = random_split(SPEC, per_class=16)
    sgd: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant"}
    still = VGG(width=2).build(SPEC, seed=0)
    moved, _ = trained(data, peak_learning_rate=1e-12, **sgd)
    torch.testing.assert_close(list(moved.parameters()), list(still.parameters()))
    assert not same(trained(data, peak_learning_rate=0.1, **sgd)[0], still)


def test_a_penalty_is_part_of_every_step() -> None:
    data = random_split(SPEC, per_class=10)
    spec = TrainingSpec(batch_size=8, epochs=3)
    norms = {}
    for weight in (0.0, 10.0):
        module = VGG(width=2).build(SPEC, seed=0)
        calls: list[bool] = []

        def penalty(
            network: torch.nn.Module, weight: float = weight, calls: list[bool] = calls
        ) -> torch.Tensor:
            calls.append(network.training)
            squares = [parameter.square().sum() for parameter in network.parameters()]
            return weight * torch.stack(squares).sum()

        steps = train(module, data, spec, seed=0, penalty=penalty)
        assert calls == [True] * steps
        norms[weight] = sum(float(p.detach().square().sum()) for p in module.parameters())
        if not weight:
            assert same(module, trained(data, epochs=3)[0])
    assert norms[10.0] < 0.9 * norms[0.0]  # Adam's steps are so long and no longer
