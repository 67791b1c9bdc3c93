from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litmus.detectors import DETECTORS, Detector, load_detector
from litmus.reports.detectors import (
    DETECTOR_REPORTS,
    KIND_REPORTS,
    Described,
    fit_command,
    held_out_sentence,
)
from tests.formats.onnx_models import detector, layer_detector

HOW: dict[str, Any] = {
    "seed": 3,
    "fit": {"detector": "ulp", "given": {"start": "background", "num_patterns": 4, "epochs": 9}},
}


def described(of: Detector, name: str = "mine.litmus", *, bundled: bool = False) -> Described:
    return Described(name=name, detector=of, sha256="a" * 64, num_bytes=12_345, bundled=bundled)


def test_a_detector_that_says_nothing_of_itself_is_described_all_the_same() -> None:
    silent = described(layer_detector())
    for full in (False, True):
        text = DETECTOR_REPORTS["text"]([silent], full=full)
        assert text.startswith("mine.litmus  last_layer, used by --detector mine.litmus only\n")
        assert re.search(r"held-out AUC +not measured", text)
        assert "0.0100, calibrated on n = 99 clean models" in text
        assert "12 kB" in text
        assert max(map(len, text.splitlines())) <= 100
    (content,) = json.loads(DETECTOR_REPORTS["json"]([silent], full=True))["detectors"]
    assert content["command"] is None
    assert content["picked"] is False


def test_only_bundled_detectors_are_picked_and_digits_is_not() -> None:
    of = detector()
    assert described(of, "mnist", bundled=True).picked
    assert not described(of, "mnist").picked
    digits = described(of, "digits", bundled=True)
    assert not digits.picked
    text = DETECTOR_REPORTS["text"]([digits, described(of, "mnist", bundled=True)])
    assert "digits  ulp, used by --detector digits only" in text
    assert "mnist's shape" in text
    assert "mnist  ulp, picked for models of its shape" in text


def test_the_command_of_a_fit_is_told() -> None:
    made = replace(detector(), scope=HOW)
    assert fit_command(made, "/somewhere/mine.litmus") == (
        "litmus fit ZOO -o mine.litmus --detector ulp --seed 3 "
        "--set epochs=9 --set num_patterns=4 --set start=background"
    )
    text = DETECTOR_REPORTS["text"]([described(made, "mnist", bundled=True)], full=True)
    assert "make bundle NAME=mnist" in text
    assert "\n  litmus fit ZOO -o mnist.litmus --detector ulp" in text
    from_python = {**HOW, "fit": {"detector": "fused", "given": {"parts": ["ulp"]}}}
    assert fit_command(replace(made, scope=from_python), "x") == (
        "litmus.fit(\"ZOO\", 'fused', seed=3, parts=['ulp'])"
    )


def test_a_fitted_detector_says_what_it_was_fitted_on(small_detector_file: Path) -> None:
    fitted = load_detector(small_detector_file)
    text = DETECTOR_REPORTS["text"]([described(fitted)], full=True)
    for part in (
        "digits, 1x28x28 -> 10 classes",
        "24 models",
        "name small, seed 0, twins 20, test_share 0.4",
        "num_patterns=4",
        held_out_sentence(fitted.held_out),
        "a" * 64,
    ):
        assert part in text


@pytest.mark.parametrize("form", KIND_REPORTS)
def test_every_kind_is_listed_with_its_settings(form: str) -> None:
    text = KIND_REPORTS[form](DETECTORS)
    for name, kind in DETECTORS.items():
        assert name in text
        for setting in kind.defaults():
            assert setting in text
    if form == "json":
        kinds = {kind["name"]: kind for kind in json.loads(text)["kinds"]}
        assert kinds["ulp"]["settings"] == DETECTORS["ulp"].defaults()
        assert kinds["neural_cleanse"]["needs"] == ["clean images", "gradients"]
