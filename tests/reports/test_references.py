from __future__ import annotations

import json

import pytest

from litmus.evaluation import ReferenceEvaluation
from litmus.evaluation.references import RecognisedModel
from litmus.reports.references import REFERENCE_REPORTS
from litmus.zoo import Zoo


@pytest.fixture
def result(small_zoo: Zoo) -> ReferenceEvaluation:
    """Every other model is found right, the others are refused."""
    return ReferenceEvaluation(
        dataset="digits",
        models=tuple(
            RecognisedModel(
                entry=entry,
                group="fold 1",
                wants="0 to 255",
                found="0 to 255" if i % 2 else None,
                reordered=i % 4 == 1,
                order_found=True,
            )
            for i, entry in enumerate(small_zoo.entries[:8])
        ),
        alike={name: frozenset({name}) for name in ("0 to 1", "0 to 255")},
        floors={"fold 1": 0.4},
        others={"place.onnx": 1.0, "signs.onnx": 0.5},
    )


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_tables_tell_what_was_found_for_what_was_wanted(
    result: ReferenceEvaluation, form: str
) -> None:
    text = REFERENCE_REPORTS[form](result, {"command": "litmus evaluate zoo --references"})
    rows = [line.replace("|", " ").split() for line in text.splitlines()]
    assert [*["0", "to", "1"], "0", "0", "0"] in rows
    assert [*["0", "to", "255"], "0", "4", "4"] in rows
    (row,) = (row for row in rows if row[:1] == ["vgg"])
    assert row[1] == "0.500"
    assert "8 cases: 8 models" in text
    assert "Of 2 models for other classes, refused: 0.750." in text
    assert ("`litmus evaluate zoo --references`" in text) is (form == "markdown")


def test_json_has_the_whole_each_input_and_each_architecture(result: ReferenceEvaluation) -> None:
    content = json.loads(REFERENCE_REPORTS["json"](result, {"command": "c", "seeds": [0]}))
    whole, never, wanted, family = content["rows"]
    assert whole["found"] == wanted["found"] == family["found"] == 0.5
    assert (never["wants"], never["found"]) == ("0 to 1", None)
    assert family["architecture"] == "vgg"
    assert content["found"]["0 to 255"] == {"0 to 1": 0, "0 to 255": 4, "nothing fits": 4}
    assert content["others"] == {"place.onnx": 1.0, "signs.onnx": 0.5}
    assert (content["command"], content["seeds"], content["floors"]) == ("c", [0], {"fold 1": 0.4})
