"""What every data set promises; those of the hub are tiny files in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from litmus.datasets import DATASETS, ImageDataset, load_images
from litmus.errors import DataError
from litmus.models import InputSpec
from tests.datasets.conftest import WriteFolder, WriteHub

# Columns and shapes as on the hub.
HUB: dict[str, dict[str, Any]] = {
    "mnist": {"side": 28, "mode": "L", "classes": 10},
    "cifar10": {"side": 32, "image": "img", "classes": 10},
    "gtsrb": {"side": 45, "classes": 43},
}
SHAPES = {
    "digits": (1, 28, 28, 10),
    "mnist": (1, 28, 28, 10),
    "cifar10": (3, 32, 32, 10),
    "gtsrb": (3, 32, 32, 43),
    "folder": (3, 32, 32, 2),
}


@pytest.fixture
def data(
    name: str, write_hub: WriteHub, write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> Path | None:
    if name in HUB:
        return Path(write_hub(name, **HUB[name]))
    return None if name == "digits" else Path(write_folder("pets", {"cat": 6, "dog": 5}))


def check(dataset: ImageDataset, name: str) -> None:
    channels, height, width, classes = SHAPES[name]
    assert dataset.name == name
    assert len(dataset.class_names) == len(set(dataset.class_names)) == classes
    assert dataset.input_spec == InputSpec(
        channels=channels, height=height, width=width, num_classes=classes
    )
    assert len(dataset.sha256) == 64
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (len(split), channels, height, width)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert torch.unique(split.labels).tolist() == list(range(classes))


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_has_images_of_every_class_in_both_splits(name: str, data: Path | None) -> None:
    dataset = load_images(name, data=data)
    check(dataset, name)
    again = load_images(name, data=str(data) if data else None)
    assert again.sha256 == dataset.sha256
    assert torch.equal(again.train.images, dataset.train.images)
    assert again.train.images.float().std() > 0


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
def test_a_folder_without_images_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images(name, data=tmp_path)
    assert caught.value.expected
    assert caught.value.where == tmp_path


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"expected one of digits, mnist, .*got imagenet"):
        load_images("imagenet")


@pytest.mark.real_data
def test_real_mnist_images(real_data: Path, tmp_path: Path) -> None:
    """The 10,000 test images stand for both splits: decoding all 70,000 takes 10 s."""
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        file = next((real_data / "mnist" / "data").glob("test-*.parquet"))
        (tmp_path / "data" / f"{split}-0.parquet").symlink_to(file)
    dataset = load_images("mnist", data=tmp_path)
    check(dataset, "mnist")
    assert dataset.class_names == tuple("0123456789")
    pixels = dataset.test.images.float() / 255
    assert pixels.mean().item() == pytest.approx(0.1325, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3105, abs=1e-4)
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
