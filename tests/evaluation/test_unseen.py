from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from litmus.detectors.patterns import NoiseDetector, ULPDetector
from litmus.errors import LitmusError, UsageError
from litmus.evaluation import Evaluation, evaluate
from litmus.models import InputSpec
from litmus.reports.evaluation import EVALUATION_REPORTS
from litmus.zoo import Zoo


@pytest.fixture(scope="module")
def evaluation(small_zoo: Zoo, small_detector: ULPDetector) -> Evaluation:
    noise = NoiseDetector.fit(small_zoo, num_patterns=4)
    return evaluate(small_zoo, {"ulp": small_detector, "noise": noise}, fpr=0.1)


def test_rows_by_control_attack_and_architecture(evaluation: Evaluation) -> None:
    groups = [(r.group, r.against) for r in evaluation.rows if r.detector == "ulp"]
    assert groups == [
        ("all", "clean"),
        ("all", "control_copies"),
        ("all", "control_kept_label"),
        ("attack: patch, source_specific", "clean"),
        ("architecture: vgg", "clean"),
    ]
    row = evaluation.headline("ulp")
    assert (row.n_clean, row.n_backdoored, row.n_triggers) == (8, 8, 4)
    assert row.auc > 0.8
    assert row.auc_low <= row.auc <= row.auc_high
    assert row.tpr_at_fpr_1 is None  # eight clean models can't tell 1 %
    assert row.num_patterns == 4


def test_the_controls_make_up_the_clean_models(evaluation: Evaluation) -> None:
    by_kind = {r.against: r.n_clean for r in evaluation.rows if r.detector == "noise"}
    assert by_kind["control_copies"] + by_kind["control_kept_label"] == by_kind["clean"]


def test_detectors_are_compared_on_the_same_models(evaluation: Evaluation) -> None:
    (comparison,) = evaluation.comparisons
    ours, noise = evaluation.headline("ulp"), evaluation.headline("noise")
    assert comparison.difference.difference == pytest.approx(ours.auc - noise.auc)


def test_flagged_shares_follow_the_verdicts(evaluation: Evaluation) -> None:
    flagged = [
        m.judgement.verdict == "suspicious" for m in evaluation.models["ulp"] if m.entry.backdoored
    ]
    assert evaluation.headline("ulp").flagged_backdoored == pytest.approx(
        sum(flagged) / len(flagged)
    )


def test_a_detector_for_other_inputs_is_refused(
    small_zoo: Zoo, small_detector: ULPDetector
) -> None:
    other = replace(
        small_detector, input_spec=InputSpec(channels=3, height=32, width=32, num_classes=10)
    )
    with pytest.raises(LitmusError, match="3x32x32"):
        evaluate(small_zoo, {"other": other}, fpr=0.1)
    with pytest.raises(UsageError, match="n = 12"):
        evaluate(small_zoo, {"ulp": small_detector}, fpr=0.01)
    with pytest.raises(UsageError, match="no detector"):
        evaluate(small_zoo, {})


@pytest.mark.parametrize("form", EVALUATION_REPORTS)
def test_every_report_has_the_figures(form: str, evaluation: Evaluation) -> None:
    text = EVALUATION_REPORTS[form](evaluation)
    auc = evaluation.headline("ulp").auc
    if form == "json":
        content = json.loads(text)
        assert content["rows"][0]["auc"] == auc
        assert len(content["models"]) == 2 * 16
        assert content["comparisons"][0]["first"] == "ulp"
    else:
        assert f"{auc:.3f} (" in text
        assert "control_kept_label" in text
        assert "ulp minus noise" in text


def test_a_part_of_a_zoo_is_its_first_twins(small_zoo: Zoo) -> None:
    first = small_zoo.first(0.5)
    assert {entry.spec.twin for entry in first.entries} == set(range(10))
    assert first.path == small_zoo.path == Path(small_zoo.path)
