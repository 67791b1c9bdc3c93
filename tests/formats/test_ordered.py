from __future__ import annotations

import numpy as np
import pytest
import torch

from litmus.errors import UnsupportedModelError
from litmus.evaluation.references import Disguise
from litmus.formats import zoo_file
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import Preprocessing
from litmus.zoo import Zoo

ORDER = np.random.default_rng(3).permutation(10)


@pytest.fixture(scope="module")
def model(small_zoo: Zoo) -> zoo_file.ZooModel:
    return zoo_file.load(small_zoo.split("test")[0].path)


def test_outputs_weights_and_network_come_in_the_order(model: zoo_file.ZooModel) -> None:
    ordered = OrderedModel(model, ORDER)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    expected = model(images)[:, ORDER]
    np.testing.assert_array_equal(ordered(images), expected)
    with torch.inference_mode():
        found = ordered.torch_module()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    weights, bias = model.last_layer()
    own_weights, own_bias = ordered.last_layer()
    np.testing.assert_array_equal(own_weights, weights[ORDER])
    np.testing.assert_array_equal(own_bias, bias[ORDER])
    assert (ordered.input_spec, ordered.outputs) == (model.input_spec, model.outputs)


def test_what_the_model_lacks_it_lacks_in_order_too(model: zoo_file.ZooModel) -> None:
    bare = Disguise(model, Preprocessing(), np.arange(10))
    for what in ("last_layer", "torch_module"):
        with pytest.raises(UnsupportedModelError, match=what):
            getattr(OrderedModel(bare, ORDER), what)()


def test_names_of_classes_move_along(model: zoo_file.ZooModel) -> None:
    model.classes = tuple(f"digit {i}" for i in range(10))
    assert OrderedModel(model, ORDER).classes == tuple(f"digit {i}" for i in ORDER)
