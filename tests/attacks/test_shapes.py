from __future__ import annotations

from typing import get_args

import pytest
import torch

from litmus.attacks.shapes import SHAPES, SMALLEST, TriggerShape


def drawn(shape: TriggerShape, size: int) -> list[str]:
    mask = SHAPES[shape](size)
    return ["".join(".#"[pixel] for pixel in row) for row in mask.int().tolist()]


def test_every_name_has_its_shape() -> None:
    assert set(SHAPES) == set(get_args(TriggerShape))


def test_what_they_look_like() -> None:
    assert drawn("cross", 5) == ["..#..", "..#..", "#####", "..#..", "..#.."]
    assert drawn("disc", 5) == [".###.", "#####", "#####", "#####", ".###."]
    assert drawn("triangle", 5) == ["..#..", "..#..", ".###.", ".###.", "#####"]
    assert drawn("frame", 5) == ["#####", "#...#", "#...#", "#...#", "#####"]
    assert drawn("triangle", 6) == ["..##..", "..##..", ".####.", ".####.", "######", "######"]
    assert drawn("cross", 6) == ["..##..", "..##..", "######", "######", "..##..", "..##.."]


@pytest.mark.parametrize("size", range(SMALLEST, 65))
def test_shapes_differ_are_mirrored_and_reach_all_sides(size: int) -> None:
    masks = [SHAPES[shape](size) for shape in SHAPES]
    assert len({mask.numpy().tobytes() for mask in masks}) == len(SHAPES)
    for mask in masks:
        assert mask.shape == (size, size)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, mask.flip(1))
        assert mask[0].any()
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()
