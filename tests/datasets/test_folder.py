from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litmus.datasets import ImageDataset
from litmus.datasets.folder import load
from litmus.errors import DataError
from tests.datasets.conftest import WriteFolder, picture


def levels(dataset: ImageDataset) -> list[float]:
    """The mean grey level of each training image; `picture` makes it 40 * class + 20."""
    return dataset.train.images.float().mean(dim=(1, 2, 3)).tolist()


def test_classes_are_the_folders_in_sorted_order(write_folder: WriteFolder) -> None:
    write_folder("pets", {"dog": 10, "cat": 5, "emu": 7})
    (write_folder("pets", {}) / ".git" / "x").mkdir(parents=True)
    (write_folder("pets", {}) / "notes").mkdir()
    (write_folder("pets", {}) / "notes" / "notes.txt").touch()
    dataset = load(data=write_folder("pets", {}), image_size=8)
    assert dataset.class_names == ("cat", "dog", "emu")
    # Every fifth image of each class is held out.
    assert dataset.train.labels.bincount().tolist() == [4, 8, 6]
    assert dataset.test.labels.bincount().tolist() == [1, 2, 1]
    expected = [picture(1, n) for n in (0, 1, 2, 3)] + [picture(0, n) for n in (0, 1, 2, 3, 5)]
    pixels = np.stack([np.asarray(p).transpose(2, 0, 1) for p in expected])
    np.testing.assert_array_equal(dataset.train.images[:9].numpy(), pixels)
    held_out = np.asarray(picture(1, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.test.images[0].numpy(), held_out)


def test_a_test_folder_is_used_as_it_is(write_folder: WriteFolder) -> None:
    write_folder("signs/train", {"stop": 3, "yield": 2})
    write_folder("signs/test", {"stop": 1, "yield": 4})
    dataset = load(data=write_folder("signs", {}))
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1, 1, 1, 1]
    assert dataset.train.images.shape == (5, 3, 32, 32)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "webp", "ppm", "gif", "jpg", "tiff"])
def test_usual_formats_are_read(write_folder: WriteFolder, suffix: str) -> None:
    dataset = load(data=write_folder(suffix, {"a": 5, "b": 5}, side=16, suffix=suffix))
    np.testing.assert_allclose(levels(dataset), [20] * 4 + [60] * 4, atol=6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (8, 3), (5, 3), (20, 1)])
def test_sizes_and_colours_are_converted(
    write_folder: WriteFolder, mode: str, size: int, channels: int
) -> None:
    folder = write_folder("x", {"a": 5, "b": 5}, mode=mode)
    dataset = load(data=folder, image_size=size, channels=channels)
    assert dataset.train.images.shape == (8, channels, size, size)
    np.testing.assert_allclose(levels(dataset), [20] * 4 + [60] * 4, atol=6)


def test_pictures_in_folders_below_a_class_count(write_folder: WriteFolder) -> None:
    write_folder("x", {"a": 5, "b": 3})
    write_folder("x/b", {"more": 2})
    assert len(load(data=write_folder("x", {})).train) == 8


def test_a_new_picture_is_noticed(write_folder: WriteFolder) -> None:
    folder = write_folder("x", {"a": 5, "b": 5})
    first, again = load(data=folder), load(data=folder)
    assert first.sha256 == again.sha256
    Image.new("RGB", (8, 8)).save(folder / "a" / "zzz.png")
    assert len(load(data=folder).train) == len(first.train) + 1


def test_the_folder_may_come_from_the_environment(
    write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="expected --data DIR or LITMUS_DATA"):
        load()
    monkeypatch.setenv("LITMUS_DATA", str(write_folder("x", {"a": 5, "b": 5})))
    assert len(load().train) == 8


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "no such folder"),
        ({"x": {"a": 5}}, r"too few classes \(expected at least two folders .* got \['a'\]\)"),
        ({"x": {"a": 5, "b": 4}}, r"too few images to hold some out .*got \{'b': 4\}"),
        (
            {"x/train": {"a": 1, "b": 1}, "x/test": {"a": 1, "c": 1}},
            r"different classes \(expected \['a', 'b'\], got \['a', 'c'\]\)",
        ),
        (
            {"x/train": {"a": 1, "b": 1}, "x/test": {"a": 1}},
            r"different classes \(expected \['a', 'b'\], got \['a'\]\)",
        ),
    ],
)
def test_other_folders_are_refused(
    tmp_path: Path, write_folder: WriteFolder, folders: dict[str, dict[str, int]], message: str
) -> None:
    for folder, counts in folders.items():
        write_folder(folder, counts)
    with pytest.raises(DataError, match=message) as caught:
        load(data=tmp_path / "x")
    assert caught.value.where == tmp_path / "x"


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_corrupt_picture_is_named(write_folder: WriteFolder, content: bytes | None) -> None:
    folder = write_folder("x", {"a": 5, "b": 5}, side=32)
    path = folder / "b" / "002.png"
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(DataError, match="not a readable image") as caught:
        load(data=folder)
    assert caught.value.where == path
