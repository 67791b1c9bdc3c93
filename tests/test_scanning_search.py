"""Scans at standard effort: the trigger search in the sandboxed process, and what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litmus.detectors.fused import FusedDetector
from litmus.detectors.stacking import possible_sets
from litmus.detectors.trigger_search import TriggerSearchDetector
from litmus.errors import DataError, DetectorError, MissingExtraError
from litmus.models import InputSpec
from litmus.reports.scan import SCAN_REPORTS, json_schema
from litmus.scanning import Scored, scan
from litmus.scanning.warmup import made_ready
from tests.formats.onnx_models import classifier, fused_detector, save, search_detector
from tests.reports.scan.cases import context

SPEC = InputSpec(channels=3, height=12, width=12, num_classes=4)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    path = tmp_path / "search.litmus"
    found = search_detector(SPEC)
    # Clean models score far lower, so that whatever is found is a finding.
    low = replace(found.calibration, scores=found.calibration.scores - 1e4)
    path.write_bytes(replace(found, calibration=low).to_bytes())
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(classifier(spec=SPEC), tmp_path / "m.onnx")


def test_a_scan_shows_the_trigger_that_it_found(model: Path, detector: Path) -> None:
    first, again = (next(iter(scan(model, detector=detector, fpr=0.2))) for _ in range(2))
    assert isinstance(first, Scored)
    assert isinstance(again, Scored)
    evidence = first.evidence
    assert evidence is not None
    assert evidence.before.shape[1:] == SPEC.image_shape
    assert first.notes[0] == f"found: {evidence.words()}"
    # The same model gives the same answer.
    assert first.member_scores == again.member_scores
    assert evidence == again.evidence


def test_it_scores_as_in_this_process(model: Path, detector: Path) -> None:
    from litmus.formats import onnx_file

    (result,) = scan(model, detector=detector, fpr=0.2)
    assert isinstance(result, Scored)
    own = search_detector(SPEC).measure(onnx_file.load(model))
    assert result.member_scores == pytest.approx(own.member_scores)


@pytest.mark.parametrize("name", SCAN_REPORTS)
def test_every_report_tells_what_was_found(name: str, model: Path, detector: Path) -> None:
    from litmus.detectors.candidates import Candidates

    known = Candidates.of(detector)
    results = list(scan(model, detector=known, fpr=0.99))
    report = SCAN_REPORTS[name](results, context(known))
    (result,) = results
    assert isinstance(result, Scored)
    assert result.evidence is not None
    words = result.evidence.words()
    flat = " ".join(report.split())
    assert words[1:40] in flat
    if name == "html":
        assert report.count("data:image/png") >= 1 + 2 * len(result.evidence.before)
    if name == "json":
        import jsonschema

        jsonschema.validate(json.loads(report), json.loads(json_schema()))


def test_pictures_need_no_labels(model: Path, detector: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures" / "any" / "depth"
    folder.mkdir(parents=True)
    for i in range(60):
        pixels = random.integers(0, 256, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    (folder / "damaged.png").write_bytes(b"no picture")
    (result,) = scan(model, detector=detector, fpr=0.2, images=tmp_path / "pictures")
    assert isinstance(result, Scored)
    assert result.evidence is not None
    assert result.evidence.images_from == "given pictures"
    assert "trigger search on given pictures" in result.notes


def test_pictures_of_no_class_are_no_less_use_beside_a_part_that_wants_classes(
    tmp_path: Path,
) -> None:
    """A thorough scan with a folder of any pictures: the search has them, Neural Cleanse says."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{i}.png")
    fused = fused_detector(SPEC)
    chosen = {
        "trigger_search": search_detector(SPEC),
        "neural_cleanse": fused.parts["neural_cleanse"],
    }
    parts = {"ulp": fused.parts["ulp"], **chosen}
    any_set = fused.combinations["ulp", "last_layer"]
    whole = replace(fused, parts=parts, combinations=dict.fromkeys(possible_sets(parts), any_set))
    made = made_ready({"whole": whole, **chosen}, "thorough", str(folder), 60.0)
    ready = made["whole"]
    assert isinstance(ready, FusedDetector)
    assert ready.asked == ("ulp", "trigger_search")
    for detector in (made["trigger_search"], ready.parts["trigger_search"]):
        assert isinstance(detector, TriggerSearchDetector)
        assert detector.pictures is not None
    assert made["neural_cleanse"].lacks_images
    with pytest.raises(DataError):
        made_ready({"neural_cleanse": chosen["neural_cleanse"]}, "thorough", str(folder), 60.0)


def test_images_by_class_need_pytorch_and_pictures_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (12, 12)).save(tmp_path / "0.png")
    part = fused_detector(SPEC).parts["neural_cleanse"]
    monkeypatch.setattr("litmus.scanning.warmup.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="images by class need PyTorch"):
        made_ready({"part": part}, "thorough", str(tmp_path), 60.0)
    made_ready({"part": part, "s": search_detector(SPEC)}, "thorough", str(tmp_path), 60.0)


def test_a_folder_without_pictures_is_told_before_the_first_result(
    model: Path, detector: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DetectorError, match="no pictures that can be read"):
        list(scan(model, detector=detector, fpr=0.2, images=tmp_path / "empty"))


def test_a_fused_detector_without_a_search_asks_the_parts_that_it_has(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "fused.litmus"
    path.write_bytes(fused_detector(SPEC).to_bytes())
    (result,) = scan(model, detector=path, fpr=0.2)
    assert isinstance(result, Scored)
    assert result.parts == ("ulp", "last_layer", "max_margin")
    assert result.evidence is None
    assert isinstance(fused_detector(SPEC).at_effort("standard"), FusedDetector)
