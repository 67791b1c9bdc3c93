from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.formats.onnx_models import classifier, save
from tests.test_explaining import SPEC, backdoored, images
from tests.test_scanning_thorough import unconvertible

__all__ = ["images"]  # a fixture


def test_an_explanation_is_printed_or_written(run: Run, tmp_path: Path, images: Path) -> None:
    model, page = backdoored(tmp_path / "m.onnx"), tmp_path / "page.html"
    options = ("--images", images, "--steps", 20, "--patch-size", 1, "--classes", "2,0")
    made = run("explain", model, *options, "-f", "html", "-o", page)
    assert (made.code, made.out) == (0, "")
    assert "reversing triggers: 3 of 3" in made.err
    content = page.read_text(encoding="utf-8")
    assert "class 2 (cat)" in content
    assert "class 1 (bee)" not in content.partition("Each class")[2]
    assert "data:image/png" in content


def test_what_can_not_be_explained_has_the_exit_code_of_a_scan(
    run: Run, tmp_path: Path, images: Path
) -> None:
    skipped = run("explain", unconvertible(tmp_path / "m.onnx"), "--images", images)
    assert skipped.code == 3
    assert "skipped" in skipped.err
    assert "ThresholdedRelu" in skipped.err
    missing = run("explain", tmp_path / "none.onnx", "--images", images)
    assert missing.code == 2
    assert "FAILED" in missing.err


def test_mistakes_are_usage_errors(run: Run, tmp_path: Path, images: Path) -> None:
    model = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    given = ("explain", model, "--images", images)
    for wrong in (
        ("-f", "sarif"),
        ("--classes", "two"),
        ("--place", "moon"),
        ("--steps", 0),
        ("--timeout", 0),
    ):
        assert run(*given, *wrong).code == 4
    assert run("explain", model).code == 4
