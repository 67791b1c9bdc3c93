from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import datasets
from litmus.datasets import ImageDataset
from litmus.datasets.hub import load_hub_dataset, local_folder
from litmus.errors import DataError
from tests.datasets.conftest import WriteHub, encoded, picture


def load(data: Path, *, image_size: int = 8, channels: int = 3) -> ImageDataset:
    return load_hub_dataset(
        "set", hub_id="nobody/set", image_size=image_size, channels=channels, data=data
    )


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "fine_label")])
def test_pictures_come_back_pixel_by_pixel_whatever_the_columns_are_called(
    write_hub: WriteHub, columns: tuple[str, str]
) -> None:
    loaded = load(write_hub(image=columns[0], label=columns[1]))
    assert loaded.class_names == ("class 0", "class 1", "class 2")
    assert loaded.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert loaded.test.labels.tolist() == [0, 1, 2]
    expected = [np.asarray(picture(n % 3, n)).transpose(2, 0, 1) for n in range(6)]
    np.testing.assert_array_equal(loaded.train.images.numpy(), np.stack(expected))


def test_other_columns_are_no_trouble(write_hub: WriteHub) -> None:
    assert len(load(write_hub(extra={"id": datasets.Value("int64")})).train) == 6


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 6, 11])
def test_sizes_and_colours_are_converted(
    write_hub: WriteHub, mode: str, channels: int, side: int
) -> None:
    loaded = load(write_hub(mode=mode, side=side), channels=channels)
    images = loaded.train.images
    assert images.shape == (6, channels, 8, 8)
    # Classes are told apart by their grey level, which resampling keeps.
    levels = images.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(levels, 40.0 * loaded.train.labels + 20, atol=6, rtol=0)


@pytest.mark.parametrize("below", [False, True])
def test_data_is_the_folder_itself_or_the_one_above(
    write_hub: WriteHub, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    folder = write_hub("set")
    named = folder.parent if below else folder
    assert local_folder("set", named) == folder
    monkeypatch.setenv("LITMUS_DATA", str(named))
    assert local_folder("set", None) == folder


def test_without_a_folder_the_hub_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_folder("set", None) is None
    monkeypatch.setenv("LITMUS_DATA", "")
    assert local_folder("set", None) is None


def test_a_folder_without_the_files_says_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data set 'set' not found") as caught:
        load(tmp_path)
    for place in (tmp_path / "set" / "data", tmp_path / "data"):
        assert str(place / "train-*.parquet") in str(caught.value)


def test_a_split_is_missing(write_hub: WriteHub) -> None:
    folder = write_hub(labels={"train": [0, 1, 2]})
    with pytest.raises(DataError, match=r"expected train and test, got \['train'\]") as caught:
        load(folder)
    assert caught.value.where == str(folder)


@pytest.mark.parametrize(
    "extra",
    [{"other": datasets.ClassLabel(names=["a", "b", "c"])}, {"label": datasets.Value("int64")}],
    ids=["two label columns", "none"],
)
def test_columns_must_tell_what_they_are(write_hub: WriteHub, extra: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"expected one Image and one ClassLabel column, got \{"):
        load(write_hub(extra=extra))


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_corrupt_picture_is_named_by_its_number(
    write_hub: WriteHub, content: bytes | None
) -> None:
    good = encoded(picture(0, 0, side=32))
    bad = {"bytes": good["bytes"][: len(good["bytes"]) // 2] if content is None else content}
    folder = write_hub(images=[good, bad, good], labels={"train": [0, 1, 2], "test": [0, 1, 2]})
    with pytest.raises(DataError, match=r"image 1 can't be decoded") as caught:
        load(folder)
    assert caught.value.where == f"{folder} (train)"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train": [0, 1, 2], "test": [-1, -1, -1]}, "a label has no class"),
        ({"train": [0, 1, 2], "test": [0, 1, None]}, "can't be decoded"),
        ({"train": [0, 1, 1], "test": [0, 1, 2]}, "a class has no images"),
        ({"train": [], "test": [0, 1, 2]}, "the split has no images"),
    ],
    ids=["hidden labels", "no label", "no image of a class", "empty split"],
)
def test_labels_that_can_not_be_used(
    write_hub: WriteHub, labels: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(write_hub(labels=labels))


def test_a_damaged_file_is_an_error_with_a_place(write_hub: WriteHub) -> None:
    folder = write_hub()
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(folder) in str(caught.value.where)


def test_changed_files_are_read_again(write_hub: WriteHub) -> None:
    first = load(write_hub())
    write_hub(labels={"train": [0, 1, 2, 2, 2], "test": [0, 1, 2]})
    assert load(write_hub("set", labels={"test": [2, 1, 0]})).sha256 != first.sha256
