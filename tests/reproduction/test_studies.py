from __future__ import annotations

import numpy as np
import pytest

from litmus.reproduction import ablations as ablations_module
from litmus.reproduction import run_tasks
from litmus.reproduction import timing as timing_module
from litmus.reproduction.ablations import ablations, ablations_tasks
from litmus.reproduction.intuition import intuition, intuition_tasks
from litmus.reproduction.pictures import figure1, figure1_tasks, figure2, figure3
from litmus.reproduction.pool import Answers
from litmus.reproduction.timing import timing, timing_tasks, timing_work
from tests.reproduction.conftest import Open
from tests.reproduction.test_detection import silent


def test_each_choice_has_its_default_and_something_else(opened: Open) -> None:
    study = opened(seeds=(0,))
    result = ablations(study, run_tasks(ablations_tasks(study), workers=1), silent)
    assert [(r.choice, r.value) for r in result.rows if r.default] == [
        ("pooling", "concatenate"),
        ("tv_weight", "0.0001"),
        ("dropout", "0.1"),
        ("features", "log_probs"),
        ("training models", "24"),
    ]
    assert len({r.row.auc for r in result.rows if r.default}) == 1
    assert [(r.choice, r.value) for r in result.rows if not r.default] == [
        ("pooling", "max"),
        ("pooling", "mean"),
        ("tv_weight", "0"),
        ("dropout", "0"),
        ("features", "logits"),
    ]
    assert all((r.row.n_clean, r.row.n_backdoored) == (8, 8) for r in result.rows)


def test_zoo_sizes_double_and_are_nested(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations_module, "_SMALLEST", 5)
    training = opened().zoos["small"].split("train")
    sizes = ablations_module._sizes(training)
    assert [len(entries) for entries in sizes] == [20, 24]  # 2 and 5 twins can't fill the folds
    assert sizes[0] == training[:20]


def test_backdoored_models_raise_their_target(opened: Open) -> None:
    study = opened(fitting={"epochs": 10})
    result = intuition(study, run_tasks(intuition_tasks(study), workers=1), silent)
    assert [row.detector for row in result.rows] == ["ulp", "noise", "pasted triggers"]
    learned = [rate for rate in result.rates if rate.patterns == "learned"]
    target = [rate for rate in learned if rate.question == "most raised is the target"]
    assert [rate.seed for rate in target] == [0, 1]
    assert all(rate.n == 8 and rate.chance == 0.1 for rate in target)
    assert all(rate.low > rate.chance for rate in target)
    source = [rate for rate in learned if rate.question == "most raised is the source"]
    assert all(rate.hits < other.hits for rate, other in zip(source, target, strict=True))


def test_one_run_times_every_detector(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_module, "_LOOP_PAIRS", 9)
    study = opened(seeds=(0,))
    tasks = timing_tasks(study)
    result = timing(study, run_tasks(tasks, workers=1), silent)
    rows = {row.detector: row for row in result.rows}
    assert list(rows) == [
        "ulp", "noise", "attack_based", "neural_cleanse", "attack_based, pair by pair"
    ]  # fmt: skip
    assert rows["ulp"].times_ulp == 1
    assert rows["attack_based"].seconds > rows["ulp"].seconds
    assert "measured on 9 of them" in rows["attack_based, pair by pair"].note
    assert all(row.dataset == "digits" for row in result.rows)
    assert len(timing_work(study)) == 3


def test_pictures_are_of_the_models_that_they_name(opened: Open) -> None:
    study = opened(seeds=(0,))
    first = figure1(study, run_tasks(figure1_tasks(study), workers=1), silent)
    assert first.patterns.shape == (2, 1, 28, 28)
    assert {label: a.shape for label, a in first.answers.items()} == {
        "clean model": (2, 10), "backdoored model": (2, 10)
    }  # fmt: skip
    assert set(first.scores) == set(first.models) == set(first.answers)

    second = figure2(study, Answers({}), silent)
    entry = next(e for e in study.zoos["small"].split("test") if e.backdoored)
    assert second.model == entry.id
    assert len(second.triggers) == 8
    assert second.attack_success == pytest.approx(entry.attack_success)
    weights = np.bincount(study.images["small"].load().test.labels.numpy())
    assert np.average(second.clean_accuracy, weights=weights) == pytest.approx(entry.clean_accuracy)
    clean, triggered = second.examples
    assert clean[0] == f"clean: {second.source_class}"
    assert triggered[0] == f"triggered: {second.target_class}"

    third = figure3(study, Answers({}), silent)
    assert len(third.examples) == 20
    assert third.examples[0][1].shape == (1, 28, 28)
