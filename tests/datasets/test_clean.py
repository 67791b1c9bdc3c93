from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litmus.datasets.clean import load_clean_images
from litmus.errors import DataError
from litmus.models import InputSpec
from tests.datasets.conftest import WriteHub

SPEC = InputSpec(channels=3, height=8, width=8, num_classes=3)


def fill(folder: Path, per_class: int, *, classes: str = "abc") -> Path:
    """Images of which each is of one value, which says where it stands in its class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            picture = Image.new("RGB", (8, 8), (label, number % 256, number // 256))
            picture.save(folder / name / f"{number:04}.png")
    return folder


def test_a_folder_gives_all_its_images(tmp_path: Path) -> None:
    split = load_clean_images(fill(tmp_path, 3), SPEC)
    assert split.images.shape == (9, 3, 8, 8)
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels)
    np.testing.assert_array_equal(split.images[:, 1, 0, 0], [0, 1, 2] * 3)


def test_of_a_large_folder_some_are_taken_from_its_whole_length(tmp_path: Path) -> None:
    split = load_clean_images(fill(tmp_path, 450), SPEC)
    values = split.images[:, :, 0, 0].numpy().astype(int)
    for label in range(3):
        numbers = (values[:, 1] + 256 * values[:, 2])[split.labels == label]
        assert 100 <= len(numbers) <= 200
        assert (np.diff(numbers) == 3).all()
        assert numbers[-1] >= 447


def test_held_out_images_come_first(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2)
    fill(tmp_path / "test", 1)
    assert len(load_clean_images(tmp_path, SPEC)) == 3


def test_images_take_the_size_and_channels_that_the_model_has(tmp_path: Path) -> None:
    grey = InputSpec(channels=1, height=5, width=5, num_classes=3)
    assert load_clean_images(fill(tmp_path, 2), grey).images.shape == (6, 1, 5, 5)


def test_a_data_set_gives_its_test_images() -> None:
    spec = InputSpec(channels=1, height=28, width=28, num_classes=10)
    assert len(load_clean_images("digits", spec)) > 400


def test_parquet_files_give_their_test_images(write_hub: WriteHub) -> None:
    split = load_clean_images(write_hub(), SPEC)
    assert split.labels.tolist() == [0, 1, 2]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such images .*or one of digits, mnist"):
        load_clean_images(tmp_path / "none", SPEC)
    with pytest.raises(DataError, match="expected 3, got 2"):
        load_clean_images(fill(tmp_path / "two", 1, classes="ab"), SPEC)
    with pytest.raises(DataError, match="square"):
        load_clean_images(tmp_path, InputSpec(channels=3, height=8, width=9, num_classes=3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="too few classes"):
        load_clean_images(tmp_path / "empty", SPEC)
