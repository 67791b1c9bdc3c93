from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from litmus.detectors import Detector, fit
from litmus.detectors.patterns import NoiseDetector
from litmus.errors import UsageError, ZooError
from litmus.evaluation import GROUPINGS, LeaveOut, leave_out
from litmus.reports.evaluation import LEAVE_OUT_REPORTS, breakdown_svg
from litmus.zoo import Zoo, ZooEntry


@pytest.fixture(scope="module")
def two_recipes(small_zoo: Zoo) -> Zoo:
    """The small zoo with names for the trainings: the first two twins, and the others.

    Every other twin says that its trigger is half transparent.
    """
    return replace(small_zoo, entries=tuple(map(named, small_zoo.entries)))


def named(entry: ZooEntry) -> ZooEntry:
    name = "slow" if entry.spec.twin in (0, 1) else "fast"
    training = {**entry.spec.training, "name": name}
    attack = {**entry.spec.attack, "alpha": 0.5 if entry.spec.twin % 2 else 1.0}
    return replace(entry, spec=replace(entry.spec, training=training, attack=attack))


class Spy:
    """Fits noise detectors and remembers what it fitted them on."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def __call__(self, zoo: Zoo) -> Detector:
        self.seen.append({str(e.spec.training["name"]) for e in zoo.split("train")})
        return NoiseDetector.fit(zoo, num_patterns=2, epochs=5)


@pytest.fixture(scope="module")
def measured(two_recipes: Zoo) -> tuple[LeaveOut, Spy]:
    spy = Spy()
    return leave_out(two_recipes, spy, by="recipe", fpr=0.3, only=["slow"]), spy


def test_a_group_is_judged_by_a_detector_that_never_saw_it(
    two_recipes: Zoo, measured: tuple[LeaveOut, Spy]
) -> None:
    result, spy = measured
    assert spy.seen == [{"fast"}]
    (models,) = result.models.values()
    slow = [e for e in two_recipes.split("train") if e.spec.training["name"] == "slow"]
    assert [m.entry for m in models] == slow
    assert {entry.spec.split for entry in slow} == {"train"}


def test_the_rows_and_the_summary_follow_from_the_judgements(
    measured: tuple[LeaveOut, Spy],
) -> None:
    result, _ = measured
    (row,) = result.rows
    assert (row.group, row.leave_out, row.detector) == ("slow", "recipe", "noise")
    assert result.mean_auc == row.auc
    assert result.mean_auc_interval.low <= row.auc <= result.mean_auc_interval.high
    models = result.models["slow"]
    clean = [m for m in models if not m.entry.backdoored]
    flagged = np.mean([m.judgement.verdict == "suspicious" for m in clean])
    assert result.false_positive_rate == flagged == row.flagged_clean
    low, high = result.false_positive_interval
    assert low <= flagged <= high
    assert (row.n_clean, row.n_backdoored) == (len(clean), len(models) - len(clean))
    assert [part.row.group for part in result.breakdown] == [
        "all",
        "alpha: 0.4 to 0.7",
        "alpha: 1 (opaque)",
    ]
    assert result.breakdown[0].row.auc == pytest.approx(row.auc)
    assert {part.row.n_clean for part in result.breakdown} == {len(clean)}


@pytest.mark.parametrize("form", LEAVE_OUT_REPORTS)
def test_every_report_has_the_figures(form: str, measured: tuple[LeaveOut, Spy]) -> None:
    result, _ = measured
    text = LEAVE_OUT_REPORTS[form](result, {"command": "litmus evaluate zoo", "seeds": [0]})
    if form == "json":
        content = json.loads(text)
        assert content["rows"][0]["leave_out"] == "recipe"
        assert content["summary"]["mean_auc"] == result.mean_auc
        assert content["summary"]["mean_auc_interval"]["low"] == result.mean_auc_interval.low
        assert {m["group"] for m in content["models"]} == {"slow"}
        assert content["seeds"] == [0]
        assert [p["value"] for p in content["breakdown"]] == ["", "0.4 to 0.7", "1 (opaque)"]
        assert "breakdown" not in content["summary"]
    else:
        assert f"Mean AUC {result.mean_auc:.3f}" in text
        assert "slow" in text
        assert "1 (opaque)" in text


def test_the_breakdown_is_drawn(measured: tuple[LeaveOut, Spy]) -> None:
    result, _ = measured
    drawn = breakdown_svg(result.breakdown, "a title")
    for text in ("a title", "alpha", "1 (opaque)", "2 + 1"):
        assert f">{text}</text>" in drawn
    with pytest.raises(UsageError, match="all backdoors are alike"):
        breakdown_svg((), "a title")


@pytest.mark.parametrize(
    ("by", "only", "fault", "message"),
    [
        ("colour", [], UsageError, "architecture or attack or recipe"),
        ("recipe", ["medium"], UsageError, "no such group.*fast, slow"),
        ("architecture", [], ZooError, "all models have the same architecture"),
    ],
)
def test_what_can_not_be_left_out(
    by: str, only: list[str], fault: type[Exception], message: str, two_recipes: Zoo
) -> None:
    with pytest.raises(fault, match=message):
        leave_out(two_recipes, partial(fit, detector="noise"), by=by, only=only)


def test_a_group_needs_both_kinds(two_recipes: Zoo) -> None:
    slow_clean = [
        e for e in two_recipes.entries if e.spec.training["name"] == "slow" and not e.backdoored
    ]
    with pytest.raises(ZooError, match="too few models with recipe slow"):
        leave_out(two_recipes.without(slow_clean), partial(fit, detector="noise"), by="recipe")


def test_groups_are_told_by_architecture_attack_and_training(two_recipes: Zoo) -> None:
    entry = two_recipes.entries[0]
    by: dict[str, Callable[[ZooEntry], str]] = GROUPINGS
    assert (by["architecture"](entry), by["attack"](entry)) == ("vgg", "patch")
    unnamed = replace(entry, spec=replace(entry.spec, training={"epochs": 1}))
    assert by["recipe"](unnamed) == "unnamed"
