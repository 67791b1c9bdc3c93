from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from litmus.models import InputSpec
from litmus.reports.scan.heatmap import answers
from litmus.reports.scan.pictures import PALETTE
from tests.formats.onnx_models import detector
from tests.reports.scan.cases import COLOUR, LAYER, candidates, scored


def test_cells_are_the_answers() -> None:
    result = scored("m.onnx", 0.0)
    drawn = answers(result, candidates().detectors[COLOUR])
    assert drawn is not None
    assert [(b.title, b.first, b.columns) for b in drawn.blocks] == [
        ("member 1", 0, 3), ("member 2", 3, 3),
    ]  # fmt: skip
    log_probs = np.array(result.log_probs)
    for block in drawn.blocks:
        for k, row in enumerate(block.rows):
            expected = log_probs[block.first : block.first + block.columns, k]
            texts = [cell.text for cell in row.cells]
            assert texts == [f"{value:.2f}" for value in expected]
    shades = {cell.shade for b in drawn.blocks for row in b.rows for cell in row.cells}
    assert (min(shades), max(shades)) == (0, len(PALETTE) - 1)
    assert (drawn.low, drawn.high) == (log_probs.min(), log_probs.max())


def test_classes_have_the_names_that_are_known() -> None:
    judge = candidates().detectors[COLOUR]
    result = scored("m.onnx", 0.0)
    own = replace(result, classes=("a", "b\x1b", "c", "d"))
    named = replace(judge, scope={"class_names": list("wxyz")})
    for subject, by, names, said in (
        (own, named, ["a", "b?", "c", "d"], "own names"),
        (result, named, ["w", "x", "y", "z"], "detector's"),
        (result, judge, ["0", "1", "2", "3"], "numbers"),
    ):
        drawn = answers(subject, by)
        assert drawn is not None
        assert [row.name for row in drawn.blocks[0].rows] == names
        assert said in drawn.names_from
    top = int(np.bincount(np.argmax(own.log_probs, axis=1), minlength=4).argmax())
    drawn = answers(result, named)
    assert drawn is not None
    assert drawn.most_frequent.startswith("wxyz"[top])


@pytest.mark.parametrize("log_probs", [(), ((0.0,) * 4,) * 5])
def test_without_answers_to_these_patterns_there_is_nothing(
    log_probs: tuple[tuple[float, ...], ...],
) -> None:
    known = candidates()
    result = replace(scored("m.onnx", 0.0), log_probs=log_probs)
    assert answers(result, known.detectors[COLOUR]) is None
    assert answers(scored("m.onnx", 0.0, name=LAYER), known.detectors[LAYER]) is None


def test_many_patterns_are_cut_and_many_classes_left_out() -> None:
    spec = InputSpec(channels=1, height=4, width=4, num_classes=120)
    known = candidates({COLOUR: detector(spec, members=1, patterns=23)})
    result = scored("m.onnx", 0.0, known)
    drawn = answers(result, known.detectors[COLOUR])
    assert drawn is not None
    assert [(b.first, b.columns) for b in drawn.blocks] == [(0, 10), (10, 10), (20, 3)]
    assert drawn.blocks[1].title == "member 1, patterns 11 to 20"
    assert drawn.classes_left_out == 70
    best = np.array(result.log_probs).max(axis=0)
    kept = [int(row.name) for row in drawn.blocks[0].rows]
    assert kept == sorted(kept)
    assert best[kept].min() >= np.delete(best, kept).max()
