"""Gradients of PyTorch networks, and of what wraps a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from litmus.architectures.resnet import ResNet
from litmus.errors import UnsupportedModelError
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.resizing import ResizedModel, resize
from litmus.formats.torch_model import TorchModel
from litmus.inversion import GradientModule
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


def test_a_pullback_is_what_the_loss_needs() -> None:
    gradients = model().gradients()
    for objective in ("cross_entropy", "margin"):
        logits, found = gradients.descend(IMAGES, TARGETS, objective)
        chosen = np.eye(5, dtype=np.float32)[TARGETS]
        if objective == "margin":
            others = np.where(chosen > 0, -np.inf, logits).argmax(axis=1)
            to_logits = np.eye(5, dtype=np.float32)[others] - chosen
        else:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            to_logits = powers / powers.sum(axis=1, keepdims=True) - chosen
        np.testing.assert_allclose(gradients.pullback(IMAGES, to_logits), found, atol=1e-5)


def test_an_exported_network_has_the_same(tmp_path: Path) -> None:
    own = model()
    export_onnx(own.torch_module(), SPEC, tmp_path / "m.onnx")
    exported = onnx_file.load(tmp_path / "m.onnx").gradients()
    cotangents = RANDOM.standard_normal((4, 5)).astype(np.float32)
    for found, expected in (
        (exported.logits(IMAGES), own(IMAGES)),
        (exported.descend(IMAGES, TARGETS)[1], own.gradients().descend(IMAGES, TARGETS)[1]),
        (exported.pullback(IMAGES, cotangents), own.gradients().pullback(IMAGES, cotangents)),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-3 * float(np.abs(expected).max()))


def test_as_a_module_gradients_are_the_same() -> None:
    module = GradientModule(model().gradients())
    x = torch.from_numpy(IMAGES).requires_grad_()
    loss = functional.cross_entropy(module(x), torch.from_numpy(TARGETS), reduction="sum")
    (found,) = torch.autograd.grad(loss, x)
    np.testing.assert_allclose(found, model().gradients().descend(IMAGES, TARGETS)[1], atol=1e-5)


def test_in_another_order_of_classes() -> None:
    order = np.array([2, 0, 4, 1, 3])
    ordered = OrderedModel(model(), order).gradients()
    logits, found = ordered.descend(IMAGES, TARGETS)
    plain, expected = model().gradients().descend(IMAGES, order[TARGETS])
    np.testing.assert_allclose(logits, plain[:, order], atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cotangents = RANDOM.standard_normal((4, 5)).astype(np.float32)
    back = np.zeros_like(cotangents)
    back[:, order] = cotangents
    np.testing.assert_allclose(
        ordered.pullback(IMAGES, cotangents), model().gradients().pullback(IMAGES, back), atol=1e-6
    )


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
