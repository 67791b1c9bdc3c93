from __future__ import annotations

import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.architectures.vgg_stn import SpatialTransformer
from litmus.errors import ModelError
from litmus.formats import onnx_file, zoo_file
from litmus.formats.onnx_export import OPSET, export_onnx
from litmus.formats.torch_gradients import TorchGradients
from litmus.formats.zoo_file import ZOO_FORMAT, ZooModel
from litmus.models import InputSpec, Objective
from tests.architectures.variants import Options, every_variant

SPEC = InputSpec(channels=1, height=16, width=16, num_classes=3)
IMAGES = np.random.default_rng(0).random((4, 1, 16, 16)).astype(np.float32)


def network(name: str, options: Options) -> nn.Module:
    module = ARCHITECTURES[name](**options).build(SPEC, seed=1)
    for layer in module.modules():
        if isinstance(layer, SpatialTransformer):
            # At its start the window is the whole image, whatever the image.
            nn.init.normal_(layer.affine.weight, std=0.1)
    return module.eval()


@every_variant
def test_every_architecture_becomes_a_file_that_says_the_same(
    name: str, options: Options, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = network(name, options)
    path = export_onnx(module, SPEC, tmp_path / "new" / "model.onnx")
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    model = onnx_file.load(path)
    assert model.input_spec == SPEC
    with torch.inference_mode():
        logits = module(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(model(IMAGES), logits, atol=1e-4)
    np.testing.assert_allclose(model(IMAGES[:1]), logits[:1], atol=1e-4)
    # And the gradients of both.
    targets = np.array([0, 1, 2, 0])
    expected = TorchGradients(module, SPEC)
    for objective in get_args(Objective):
        rows, there = expected.descend(IMAGES, targets, objective)
        found, here = model.gradients().descend(IMAGES, targets, objective)
        np.testing.assert_allclose(found, rows, atol=1e-4)
        np.testing.assert_allclose(here, there, atol=1e-4 * float(np.abs(there).max()) + 1e-9)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def zoo_model() -> ZooModel:
    module = ARCHITECTURES["lenet5"]().build(SPEC, seed=2)
    header = {
        "format": ZOO_FORMAT,
        "class_names": ["a", "b", "c"],
        "spec": {"input_spec": SPEC.to_json(), "architecture": {"name": "lenet5"}},
    }
    return ZooModel(header, zoo_file.saved_weights(module))


def test_a_zoo_model_with_softmax_and_class_names(zoo_model: ZooModel, tmp_path: Path) -> None:
    path = export_onnx(zoo_model, SPEC, tmp_path / "model.onnx", softmax=True)
    content = onnx.load(path)
    assert content.graph.node[-1].op_type == "Softmax"
    assert content.opset_import[0].version == OPSET
    model = onnx_file.load(path)
    assert model.classes == ("a", "b", "c")
    assert "the graph ends in Softmax: read before it" in model.notes
    np.testing.assert_allclose(model(IMAGES), zoo_model(IMAGES), atol=1e-4)
    # The exporter notes where in our source each operator comes from; that is nobody's business.
    assert b"site-packages" not in path.read_bytes()
    assert str(Path(zoo_file.__file__).parent).encode() not in path.read_bytes()


class Noise(nn.Module):
    """Never says the same twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] + torch.rand(3)


def test_a_file_that_says_something_else_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not return what the network does"):
        export_onnx(Noise(), SPEC, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_warnings_are_as_before(zoo_model: ZooModel, tmp_path: Path) -> None:
    before = list(warnings.filters)
    export_onnx(zoo_model, SPEC, tmp_path / "model.onnx")
    assert warnings.filters == before
