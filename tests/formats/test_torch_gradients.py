"""Gradients of PyTorch networks, and of what wraps a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from litmus.architectures import ARCHITECTURES
from litmus.architectures.resnet import ResNet
from litmus.errors import UnsupportedModelError
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.resizing import ResizedModel, resize
from litmus.formats.torch_gradients import prepared
from litmus.formats.torch_model import TorchModel
from litmus.inversion.search import cross_entropy
from litmus.models import InputSpec, Model

SPEC = InputSpec(channels=3, height=16, width=16, num_classes=5)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((4, *SPEC.image_shape)).astype(np.float32)
TARGETS = np.array([0, 3, 1, 4])


def model(preprocessing: Preprocessing | None = None) -> TorchModel:
    module = ResNet(width=4).build(SPEC, seed=1)
    return TorchModel(module, SPEC, preprocessing=preprocessing)


def test_they_are_those_of_the_loss() -> None:
    own = model(Preprocessing(scale=2.0, mean=0.5, std=0.5))
    logits, found = own.gradients().descend(IMAGES, TARGETS)
    x = torch.from_numpy(IMAGES).requires_grad_()
    loss = functional.cross_entropy(
        own.torch_module()(x), torch.from_numpy(TARGETS), reduction="sum"
    )
    (expected,) = torch.autograd.grad(loss, x)
    np.testing.assert_allclose(logits, own(IMAGES), atol=1e-4)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert cross_entropy(logits, TARGETS).sum() == pytest.approx(float(loss.detach()), rel=1e-4)


def test_the_margin_is_that_to_the_largest_other() -> None:
    own = model()
    _, found = own.gradients().descend(IMAGES, TARGETS, "margin")
    x = torch.from_numpy(IMAGES).requires_grad_()
    logits = own.torch_module()(x)
    aims = torch.from_numpy(TARGETS)[:, None]
    others = logits.scatter(1, aims, -torch.inf).amax(dim=1)
    (expected,) = torch.autograd.grad((others - logits.gather(1, aims)[:, 0]).sum(), x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_exported_network_has_the_same(tmp_path: Path) -> None:
    own = model()
    export_onnx(own.torch_module(), SPEC, tmp_path / "m.onnx")
    exported = onnx_file.load(tmp_path / "m.onnx").gradients()
    for found, expected in (
        (exported.logits(IMAGES), own(IMAGES)),
        (exported.descend(IMAGES, TARGETS)[1], own.gradients().descend(IMAGES, TARGETS)[1]),
        (
            exported.descend(IMAGES, TARGETS, "margin")[1],
            own.gradients().descend(IMAGES, TARGETS, "margin")[1],
        ),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-3 * float(np.abs(expected).max()))


def test_in_another_order_of_classes() -> None:
    order = np.array([2, 0, 4, 1, 3])
    ordered = OrderedModel(model(), order).gradients()
    logits, found = ordered.descend(IMAGES, TARGETS)
    plain, expected = model().gradients().descend(IMAGES, order[TARGETS])
    np.testing.assert_allclose(logits, plain[:, order], atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [12, 24])
def test_through_resizing(size: int) -> None:
    small = InputSpec(channels=3, height=size, width=size, num_classes=5)
    images = RANDOM.random((4, *small.image_shape)).astype(np.float32)
    resized = ResizedModel(model(), small).gradients()
    logits, found = resized.descend(images, TARGETS)
    np.testing.assert_allclose(logits, model()(resize(images, 16, 16)), atol=1e-4)
    step = (RANDOM.choice([-1, 1], images.shape) * 1e-2).astype(np.float32)
    sides = [cross_entropy(resized.logits(images + sign * step), TARGETS) for sign in (1, -1)]
    told = (found * step).sum(axis=(1, 2, 3))
    np.testing.assert_allclose((sides[0] - sides[1]) / 2, told, atol=2e-3, rtol=0.1)


def test_what_wraps_a_model_without_gradients_says_so() -> None:
    class Blind:
        input_spec, outputs = SPEC, "logits"

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return model()(images)

    blind: Model = Blind()  # type: ignore[assignment]
    for wrapped in (OrderedModel(blind, range(5)), ResizedModel(blind, SPEC)):
        with pytest.raises(UnsupportedModelError):
            wrapped.gradients()


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_a_prepared_network_is_a_copy_of_the_same_function(name: str) -> None:
    spec = InputSpec(channels=3, height=32, width=32, num_classes=4)
    module = ARCHITECTURES[name]().build(spec, seed=0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    ready = prepared(module)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ready(images), module.eval()(images), atol=1e-4, rtol=1e-4)
    assert not any(p.requires_grad for p in ready.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
