from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from litmus.reports.scan.pictures import PALETTE, png_uri, shades


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_the_pixels_of_its_image(channels: int) -> None:
    image = np.random.default_rng(0).random((channels, 5, 7)).astype(np.float32)
    head, data = png_uri(image).split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        pixels = np.asarray(opened)
    expected = np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels.reshape(expected.shape), expected)


def test_large_images_and_odd_numbers_of_channels_are_reduced() -> None:
    data = png_uri(np.ones((2, 224, 300), np.float32)).split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        assert opened.mode == "L"
        assert max(opened.size) <= 64
        assert np.asarray(opened).min() == 255


def test_shades_go_from_the_lowest_value_to_the_highest() -> None:
    values = np.array([-30.0, -15.0, 0.0])
    assert shades(values, -30.0, 0.0).tolist() == [0, len(PALETTE) // 2, len(PALETTE) - 1]
    assert shades(np.zeros(2), 0.0, 0.0).tolist() == [0, 0]
    assert PALETTE[0] == "#440154"
    assert PALETTE[-1] == "#fde725"
