"""Scans that take gradients: what they ask, and what they say where something is missing.

A process with PyTorch takes seconds to start: few of these tests start one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from litmus.datasets.clean import load_clean_images
from litmus.detectors import Detector
from litmus.errors import DetectorError, UsageError
from litmus.formats import onnx_file
from litmus.models import InputSpec
from litmus.scanning import Failed, Limits, ScanResult, Scored, scan
from litmus.scanning.child import OPTIONS, score_file
from tests.conftest import children_running
from tests.formats.onnx_models import classifier, detector, endless, fused_detector, save

SPEC = InputSpec(channels=3, height=6, width=6, num_classes=4)
HELD_OUT = "held-out AUC 0.90 (0.80 to 1.00) on 9 clean + 8 backdoored models"


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    path = tmp_path / "fused.litmus"
    path.write_bytes(fused_detector(SPEC).to_bytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of each of four classes."""
    random = np.random.default_rng(0)
    for label in "abcd":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"


def without_gradients(path: Path) -> Path:
    """A classifier with an operator that has no gradient."""
    model = classifier(spec=SPEC)
    model.graph.node.insert(1, helper.make_node("Asinh", ["flat"], ["cut"]))
    model.graph.node[2].input[0] = "cut"
    return save(model, path)


def what_was_asked(result: ScanResult | None) -> list[str]:
    assert isinstance(result, Scored)
    return [note for note in result.notes if note.startswith(("fused", "without"))]


def is_scored_as(result: ScanResult, own: Detector, path: Path) -> None:
    assert isinstance(result, Scored)
    expected = own.measure(onnx_file.load(path))
    assert result.score == pytest.approx(expected.score, abs=1e-4)
    assert result.p_value == own.judge(expected).p_value


def test_at_quick_effort_no_part_is_asked_that_needs_gradients(tmp_path: Path, fused: Path) -> None:
    path = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    (result,) = scan(path, detector=fused, effort="quick")
    is_scored_as(result, fused_detector(SPEC), path)
    assert what_was_asked(result) == [
        f"fused from ulp, last_layer: {HELD_OUT}",
        "without max_margin: it needs --effort standard",
        "without neural_cleanse: it needs --effort thorough and clean images by class (--images)",
    ]


def test_a_thorough_scan_asks_what_each_file_permits_within_its_limits(
    tmp_path: Path, fused: Path
) -> None:
    models = tmp_path / "models"
    good = save(classifier(spec=SPEC), models / "a.onnx")
    save(endless(SPEC), models / "b.onnx")
    other = without_gradients(models / "c.onnx")
    limits = Limits(wall_seconds=5)
    results = scan(models, detector=fused, effort="thorough", limits=limits)
    first = next(results)
    # Which is what makes it sound to fork it.
    assert [mother.num_threads() for mother in children_running("litmus.scanning.mother")] == [1]
    hung, last = results
    is_scored_as(first, fused_detector(SPEC).at_effort("thorough"), good)
    images = "without neural_cleanse: it needs clean images by class (--images)"
    assert what_was_asked(first) == [f"fused from ulp, last_layer, max_margin: {HELD_OUT}", images]
    assert isinstance(hung, Failed)
    assert "than the limit of 5 seconds" in hung.error
    is_scored_as(last, fused_detector(SPEC), other)
    assert what_was_asked(last) == [
        f"fused from ulp, last_layer: {HELD_OUT}",
        "without max_margin: its Asinh has no gradient",
        images,
    ]


def test_with_images_all_parts_are_asked(tmp_path: Path, fused: Path, folder: Path) -> None:
    path = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    (result,) = scan(path, detector=fused, effort="thorough", images=folder)
    own = fused_detector(SPEC).at_effort("thorough", images=True)
    is_scored_as(result, own.with_images(load_clean_images(folder, SPEC)), path)
    assert what_was_asked(result) == [
        f"fused from ulp, last_layer, max_margin, neural_cleanse: {HELD_OUT}"
    ]


def answer(path: Path, own: Detector) -> Mapping[str, Any]:
    request = {**OPTIONS, "path": str(path), "format": "onnx"}
    return score_file(request, {"own": own})


def test_a_detector_that_can_do_nothing_without_says_what_for(tmp_path: Path, folder: Path) -> None:
    path = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    parts = fused_detector(SPEC).parts
    assert answer(path, parts["neural_cleanse"]) == {
        "status": "skipped",
        "reason": "the detector neural_cleanse needs clean images by class: scan with --images DIR",
    }
    able = [
        parts["max_margin"],
        parts["neural_cleanse"].with_images(load_clean_images(folder, SPEC)),
        detector(SPEC).at_effort("thorough", images=True),
    ]
    assert [answer(path, own)["status"] for own in able] == ["scored"] * 3
    # Whose only part can't be asked.
    other = without_gradients(tmp_path / "o.onnx")
    assert answer(other, parts["max_margin"]) == {
        "status": "skipped",
        "reason": "its Asinh has no gradient",
    }


def test_mistakes_are_named_before_the_first_result(
    tmp_path: Path, fused: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="not for --effort quick"):
        list(scan(path, detector=fused, effort="quick", images=folder))
    # So fine a rate is had with many clean models, not with the few that all parts have read.
    list(scan(path, detector=fused, fpr=0.02, effort="quick"))
    with pytest.raises(UsageError, match="n = 39"):
        list(scan(path, detector=fused, fpr=0.02, effort="thorough"))
    (folder / "e").mkdir()
    Image.new("RGB", (6, 6)).save(folder / "e" / "0.png")
    with pytest.raises(DetectorError, match=r"another number of classes.*expected 4, got 5"):
        list(scan(path, detector=fused, effort="thorough", images=folder))
    assert not children_running("litmus.scanning.mother")


def test_a_thorough_scan_has_wider_limits() -> None:
    assert Limits.of("thorough").wall_seconds > Limits().wall_seconds
    assert Limits.of("thorough").memory_mib > Limits().memory_mib
