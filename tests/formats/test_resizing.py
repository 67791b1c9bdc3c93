from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from litmus.errors import UnsupportedModelError
from litmus.formats.resizing import ResizedModel, may_resize, resize
from litmus.formats.torch_model import TorchModel
from litmus.models import InputSpec

IMAGES = np.random.default_rng(0).random((3, 2, 12, 10), dtype=np.float32)
SMALL = InputSpec(channels=2, height=6, width=5, num_classes=4)
LARGE = InputSpec(channels=2, height=12, width=10, num_classes=4)


@pytest.mark.parametrize(("height", "width"), [(24, 17), (12, 10), (13, 31)])
def test_sides_that_grow_are_interpolated(height: int, width: int) -> None:
    expected = F.interpolate(
        torch.from_numpy(IMAGES), (height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize(IMAGES, height, width), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(6, 5), (4, 2), (1, 1), (3, 10)])
def test_sides_that_shrink_are_averaged(height: int, width: int) -> None:
    expected = F.interpolate(torch.from_numpy(IMAGES), (height, width), mode="area")
    np.testing.assert_allclose(resize(IMAGES, height, width), expected.numpy(), atol=1e-5)


def test_each_side_by_itself_and_no_pixel_counts_for_more_than_another() -> None:
    resized = resize(IMAGES, 7, 25)
    assert resized.shape == (3, 2, 7, 25)
    assert resized.dtype == np.float32
    assert resized.min() >= 0
    assert resized.max() <= 1
    np.testing.assert_allclose(resize(np.ones_like(IMAGES), 7, 25), 1, atol=1e-6)
    # An average over areas that do not fall on whole pixels keeps the mean.
    np.testing.assert_allclose(
        resize(IMAGES, 7, 10).mean(axis=(2, 3)), IMAGES.mean(axis=(2, 3)), atol=1e-5
    )


@pytest.fixture
def model() -> TorchModel:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(240, 4))
    return TorchModel(module.requires_grad_(False), LARGE)


def test_a_model_of_another_size_answers_to_resized_images(model: TorchModel) -> None:
    resized = ResizedModel(model, SMALL)
    assert (resized.input_spec, resized.own_spec, resized.outputs) == (SMALL, LARGE, "logits")
    small = IMAGES[:, :, ::2, ::2].copy()
    np.testing.assert_allclose(resized(small), model(resize(small, 12, 10)), atol=1e-6)
    assert resized.notes == [
        "the detector's 6x5 images were resized to the model's 12x10: it is not calibrated at "
        "that size, so that the verdict is at most inconclusive"
    ]
    assert not hasattr(resized, "torch_module")


def test_the_last_layer_is_the_models_own(model: TorchModel) -> None:
    weights, bias = ResizedModel(model, SMALL).last_layer()
    np.testing.assert_array_equal(weights, model.last_layer()[0])
    assert (weights.shape, bias.shape) == ((4, 240), (4,))


def test_a_model_without_last_layer() -> None:
    class Bare:
        input_spec, outputs = LARGE, "logits"

    with pytest.raises(UnsupportedModelError, match="does not give its last layer"):
        ResizedModel(Bare(), SMALL).last_layer()  # type: ignore[arg-type]


def test_only_height_and_width_may_differ() -> None:
    assert may_resize(LARGE, SMALL)
    assert not may_resize(LARGE, InputSpec(channels=1, height=12, width=10, num_classes=4))
    assert not may_resize(LARGE, InputSpec(channels=2, height=12, width=10, num_classes=5))
