from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litmus.errors import DataError
from litmus.formats.pictures import load_pictures
from litmus.models import InputSpec

COLOUR = InputSpec(channels=3, height=6, width=4, num_classes=2)
GREY = InputSpec(channels=1, height=6, width=4, num_classes=2)


def save(path: Path, colour: tuple[int, int, int], mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), colour).convert(mode).save(path)


def test_pictures_of_any_kind_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    save(tmp_path / "b" / "x.png", (255, 0, 0))
    save(tmp_path / "a.JPG", (0, 0, 0))
    save(tmp_path / "c.bmp", (0, 0, 255), "P")
    found = load_pictures(tmp_path, COLOUR)
    assert found.shape == (3, *COLOUR.image_shape)
    assert found.dtype == np.float32
    assert found.mean(axis=(2, 3)) == pytest.approx(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]]))
    assert load_pictures(tmp_path, GREY).shape == (3, *GREY.image_shape)


def test_of_many_some_are_taken_evenly(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"{i:02}.png", (i * 10, 0, 0))
    reds = np.rint(load_pictures(tmp_path, COLOUR, most=4)[:, 0, 0, 0] * 255)
    assert reds.tolist() == [0, 50, 100, 150]


def test_damaged_ones_are_passed_over_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no pictures that can be read") as caught:
        load_pictures(tmp_path, COLOUR)
    assert "1 of these names" in str(caught.value)
    save(tmp_path / "b.png", (9, 9, 9))
    assert len(load_pictures(tmp_path, COLOUR)) == 1


def test_a_model_of_two_channels_has_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 or 3 channels"):
        load_pictures(tmp_path, InputSpec(channels=2, height=4, width=4, num_classes=2))
