from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from litmus.artifacts import encode_tensors, parse_tensors, write_atomically
from litmus.datasets import ImageDataset
from litmus.errors import ModelError
from litmus.formats.zoo_file import load, module_from, saved_weights
from litmus.training import predict
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.trainer import train_model
from tests.conftest import tiny_recipe_table


@pytest.fixture(scope="module")
def spec(digits: ImageDataset) -> ModelSpec:
    return expand(parse_recipe(tiny_recipe_table(), "zoo.toml"), digits.input_spec)[0]


@pytest.fixture(scope="module")
def content(spec: ModelSpec, digits: ImageDataset) -> bytes:
    return train_model(spec, digits).content


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    write_atomically(tmp_path / "model.safetensors", content)
    return tmp_path / "model.safetensors"


def test_a_loaded_model_is_the_one_that_was_measured(
    path: Path, spec: ModelSpec, digits: ImageDataset
) -> None:
    model = load(path)
    assert model.input_spec == digits.input_spec
    assert model.outputs == "logits"
    images = (digits.test.images.float() / 255).numpy()
    logits = model(images)
    assert logits.shape == (len(images), 10)
    assert logits.dtype == np.float32
    correct = logits.argmax(axis=1) == digits.test.labels.numpy()
    assert correct.mean() == pytest.approx(model.header["clean_accuracy"])
    module = model.torch_module()
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert torch.equal(predict(module, digits.test.images), torch.from_numpy(logits.argmax(1)))


def test_nothing_tells_how_long_it_was_trained(path: Path) -> None:
    weights = load(path).weights()
    assert any(name.endswith("running_var") for name in weights)
    assert not any("num_batches" in name for name in weights)
    for module in load(path).torch_module().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.num_batches_tracked == 0


def test_weights_survive_the_file_bit_by_bit(spec: ModelSpec, digits: ImageDataset) -> None:
    module = spec.build_architecture().build(digits.input_spec, seed=3).eval()
    arrays, _ = parse_tensors(encode_tensors(saved_weights(module), {}), "memory", ModelError)
    again = module_from(spec.to_json(), arrays)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), module(images))


def test_any_flipped_bit_among_the_weights_is_found(path: Path, content: bytes) -> None:
    start = 8 + int.from_bytes(content[:8], "little")
    for place in np.random.default_rng(0).integers(start, len(content), 30):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="not those that were written"):
            load(path)


def test_a_damaged_header_is_a_model_error_or_changes_no_weight(path: Path, content: bytes) -> None:
    start = 8 + int.from_bytes(content[:8], "little")
    expected = parse_tensors(content, "memory", ModelError)[0]
    for place in np.random.default_rng(1).integers(0, start, 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(damaged)
        try:
            weights = load(path).weights()
        except ModelError as fault:
            assert str(path) in str(fault)  # noqa: PT017 - either outcome is right
        else:
            assert all(np.array_equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_file_that_was_cut_short(path: Path, content: bytes, length: int) -> None:
    path.write_bytes(content[:length])
    with pytest.raises(ModelError):
        load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "litmus-detector"}, "not a zoo model"),
        ({"spec": {}}, "do not fit"),
        ({"spec": None}, "do not fit"),
    ],
)
def test_headers_of_other_files(
    path: Path, content: bytes, changes: dict[str, object], message: str
) -> None:
    arrays, header = parse_tensors(content, path, ModelError)
    path.write_bytes(encode_tensors(arrays, {**header, **changes}))
    with pytest.raises(ModelError, match=message):
        load(path)


@pytest.mark.parametrize(
    "architecture",
    [{"name": "lenet5"}, {"name": "vgg", "width": 3}, {"name": "vit"}, {"name": "vgg", "x": 1}],
)
def test_another_architecture_does_not_fit_the_weights(
    path: Path, content: bytes, spec: ModelSpec, architecture: dict[str, object]
) -> None:
    arrays, header = parse_tensors(content, path, ModelError)
    other = {**spec.to_json(), "architecture": architecture}
    path.write_bytes(encode_tensors(arrays, {**header, "spec": other}))
    with pytest.raises(ModelError, match="header and weights do not fit"):
        load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: No such file"):
        load(tmp_path / "none.safetensors")
