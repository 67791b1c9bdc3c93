from __future__ import annotations

import pytest

from litmus.reports.scan.content import probability_text
from litmus.reports.scan.text import scan_text
from litmus.scanning import ScanResult
from tests.reports.scan.cases import accepting, context, of_every_kind, scored, thorough


def test_one_file_is_explained_in_one_sentence() -> None:
    text = scan_text([scored("m.onnx", 9.0)], context())
    assert "None of the 99 clean models that the detector was calibrated on looks as" in text
    assert "(p = 0.0100), and a model is called suspicious at p <= 0.05, which" in text
    assert " q " not in text


def test_each_set_of_parts_has_its_own_calibration() -> None:
    results, known = thorough()
    lines = [
        line for line in scan_text(results, context(known)).split("\n") if "calibrated" in line
    ]
    assert [line[line.index("parts") :] for line in lines] == [
        "parts ulp, last_layer: calibrated on n = 59 clean models, smallest p 0.0167.",
        "parts ulp, last_layer, max_margin: calibrated on n = 39 clean models, smallest p 0.0250.",
    ]


def test_a_model_that_the_detector_does_not_know_has_no_verdict() -> None:
    odd = scan_text([scored("odd.onnx", 9.0, distance=1e6)], context())
    assert "No verdict: p means little for a model that the detector does not know. None" in odd
    assert "No verdict" not in scan_text([scored("bad.onnx", 9.0)], context())


def test_a_quiet_report_has_what_needs_a_look() -> None:
    results = of_every_kind()
    text = scan_text(results, context(quiet=True))
    assert "models/bad.onnx" in text
    assert "FAILED models/broken.onnx" in text
    for silent in ("models/clean.onnx", "models/odd.onnx", "models/old.h5", "clean models"):
        assert silent not in text
    assert "models/odd.onnx" in scan_text(results, context(quiet=True, fail_on="inconclusive"))


def test_a_quiet_report_of_what_is_well_is_empty() -> None:
    fine: list[ScanResult] = [scored("m.onnx", -1.0)]
    assert scan_text(fine, context(quiet=True)) == ""
    known: list[ScanResult] = [scored("m.onnx", 9.0)]
    assert scan_text(known, context(quiet=True, baseline=accepting(known))) == ""


def test_colour_is_for_who_asks() -> None:
    assert "\x1b[1;31m" in scan_text(of_every_kind(), context(colour=True))
    assert "\x1b" not in scan_text(of_every_kind(), context())


@pytest.mark.parametrize(
    ("probability", "text"), [(0.9999, ">0.99"), (0.99, "0.99"), (0.5, "0.50"), (0.0001, "<0.01")]
)
def test_no_probability_is_a_certainty(probability: float, text: str) -> None:
    assert probability_text(scored("m.onnx", 0.0, probability=probability)) == text


def test_a_verdict_is_not_broken_on_a_usual_terminal() -> None:
    text = scan_text(of_every_kind(), context(width=80))
    table = text[: text.index("models/clean.onnx: assumed")]
    assert "inconclusive" in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_narrow_terminal_gets_a_narrow_table() -> None:
    table = scan_text(of_every_kind(), context(width=60, quiet=True)).split("FAILED")[0]
    assert max(map(len, table.splitlines())) <= 60
