from __future__ import annotations

from pathlib import Path

from litmus.detectors import load_detector
from litmus.zoo import Zoo
from tests.cli.conftest import Run


def test_too_few_models_are_told(run: Run, small_zoo: Zoo) -> None:
    outcome = run("evaluate", small_zoo.path, "--references", "--set", "steps=2")
    assert outcome.code == 2
    assert "expected at least 10 twins in the training split" in outcome.err


def test_a_detector_or_references_are_evaluated_not_both(
    run: Run, small_zoo: Zoo, small_detector_file: Path
) -> None:
    for options in (
        (),
        ("--references", "--detector", small_detector_file),
        ("--detector", small_detector_file, "--others", small_detector_file),
    ):
        outcome = run("evaluate", small_zoo.path, *options)
        assert outcome.code == 4
        assert "either --detector or --references" in outcome.err


def test_a_fit_learns_them_unless_told_not_to(run: Run, small_zoo: Zoo, tmp_path: Path) -> None:
    for flag, has in (((), True), (("--no-references",), False)):
        output = tmp_path / "d.litmus"
        outcome = run("fit", small_zoo.path, "-o", output, "--detector", "last_layer", *flag)
        assert outcome.code == 0, outcome.err
        assert (load_detector(output).references is not None) is has
