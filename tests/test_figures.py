from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from litmus.figures import image_grid, labelled_images, patterns_by_member, roc_curves

GREY = np.zeros((3, 1, 8, 8), dtype=np.uint8)
COLOUR = np.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def pictures(svg: str) -> int:
    return len(list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}image")))


def test_each_image_is_drawn_with_its_label() -> None:
    svg = labelled_images([("one", GREY[0]), ("two", COLOUR[0])], columns=1)
    assert texts(svg) == ["one", "two"]
    assert pictures(svg) == 2


def test_rows_may_differ_in_length_and_channels() -> None:
    svg = image_grid([("grey", GREY), ("colour", COLOUR)])
    assert pictures(svg) == 5
    assert texts(svg) == ["grey", "colour"]
    assert texts(patterns_by_member([COLOUR, COLOUR])) == ["member 0", "member 1"]


@pytest.mark.parametrize("labels", [["ulp"], ["ulp, M = 1", "noise"]])
def test_roc_curves_are_named(labels: list[str]) -> None:
    curve = (np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]))
    drawn = texts(roc_curves(dict.fromkeys(labels, curve), "title"))
    assert {*labels, "title", "false-positive rate"} <= set(drawn)


def test_the_same_picture_is_the_same_text() -> None:
    assert image_grid([("grey", GREY)]) == image_grid([("grey", GREY)])
