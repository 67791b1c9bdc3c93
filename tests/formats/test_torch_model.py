from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from litmus.errors import ModelError
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.torch_model import TorchModel
from litmus.models import InputSpec

SPEC = InputSpec(channels=3, height=4, width=5, num_classes=3)
IMAGES = np.random.default_rng(0).random((6, *SPEC.image_shape), dtype=np.float32)
STATED = Preprocessing(scale=255.0, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0),
                       channels="bgr")  # fmt: skip


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, 3))


def test_without_preprocessing_the_network_gets_the_images(module: nn.Module) -> None:
    model = TorchModel(module, SPEC)
    with torch.no_grad():
        expected = module(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_array_equal(model(IMAGES), expected)
    assert model.torch_module() is module


def test_preprocessing_stands_before_the_network_and_its_gradients(module: nn.Module) -> None:
    model = TorchModel(module, SPEC, preprocessing=STATED)
    by_hand = (IMAGES[:, ::-1] * 255 - np.reshape([100, 110, 120], (3, 1, 1))) / np.reshape(
        [50, 60, 70], (3, 1, 1)
    )
    expected = TorchModel(module, SPEC)(by_hand.astype(np.float32))
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-5, atol=1e-5)
    images = torch.from_numpy(IMAGES).requires_grad_()
    outputs = model.torch_module()(images)
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    outputs.sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_the_same_network_is_fed_otherwise(module: nn.Module) -> None:
    model = TorchModel(module, SPEC, outputs="logits", preprocessing=Preprocessing())
    other = model.with_preprocessing(STATED)
    expected = TorchModel(module, SPEC, preprocessing=STATED)
    np.testing.assert_array_equal(other(IMAGES), expected(IMAGES))
    assert (other.outputs, other.preprocessing) == ("logits", STATED)
    assert model.preprocessing == Preprocessing()


def test_preprocessing_for_other_channels_is_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="mean does not fit the model's channels"):
        TorchModel(module, SPEC, preprocessing=Preprocessing(mean=(0.1, 0.2)))


def test_gradients_of_probabilities_are_those_of_their_logarithms() -> None:
    spec = InputSpec(channels=1, height=2, width=2, num_classes=3)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    whole = torch.nn.Sequential(network, torch.nn.Softmax(dim=1))
    images = np.random.default_rng(0).random((2, 1, 2, 2)).astype(np.float32)
    targets = np.array([0, 2])
    _, expected = TorchModel(network, spec).gradients().descend(images, targets)
    _, found = TorchModel(whole, spec, outputs="probabilities").gradients().descend(images, targets)
    np.testing.assert_allclose(found, expected, atol=1e-6)
