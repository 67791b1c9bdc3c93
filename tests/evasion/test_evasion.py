"""Models fine-tuned against a detector, with real worker processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from litmus.artifacts import machine_facts, sha256_of
from litmus.detectors import Detector
from litmus.detectors.fused import FusedDetector
from litmus.detectors.patterns import ULPDetector
from litmus.errors import LitmusError, UsageError, ZooError
from litmus.evasion import (
    GROUPS,
    Evasion,
    EvasionSettings,
    Plan,
    Tuned,
    added_models,
    check_apart,
    make_plan,
    read_tuned,
    refit,
    study,
    tune,
)
from litmus.formats import zoo_file
from litmus.models import InputSpec
from litmus.reports.evasion import evasion_files, evasion_text
from litmus.zoo import Zoo
from litmus.zoo.store import write_rejected
from litmus.zoo.verify import verify

SETTINGS = EvasionSettings(weight=2.0, epochs=4, learning_rate=0.003)


class Case(NamedTuple):
    plan: Plan
    tuned: dict[str, Tuned]
    refitted: Detector
    result: Evasion


@pytest.fixture(scope="module")
def case(
    small_zoo: Zoo,
    small_detector: ULPDetector,
    small_detector_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """Two twins of each split, fine-tuned; the detector fitted again with the two of training."""
    folder = tmp_path_factory.mktemp("tuned")
    plan = make_plan(
        small_zoo, small_detector_file, folder, models=2, refit=True, settings=SETTINGS
    )
    events = list(tune(plan, workers=2))
    assert [event.done for event in events] == list(range(11))
    assert {event.total for event in events} == {10}
    tuned = read_tuned(plan)
    refitted = refit(small_detector, small_zoo, added_models(plan, tuned))
    detectors = {"small": small_detector, "refitted": refitted}
    result = study(plan, detectors, tuned=tuned, fpr=0.1, refitted=True)
    return Case(plan, tuned, refitted, result)


def test_the_detector_sees_fewer_of_the_models_that_evade_it(
    case: Case, small_detector: ULPDetector
) -> None:
    for twin in case.plan.measured:
        scores = {
            name: small_detector.score(zoo_file.load(case.plan.folder / f"{spec.id}.safetensors"))
            for name, spec in (("fine-tuned", twin.fine_tuned), ("evading", twin.evading))
        }
        before = small_detector.score(zoo_file.load(twin.before.path))
        assert scores["evading"] < min(before, scores["fine-tuned"]) - 3
    for twin in (*case.plan.measured, *case.plan.added):
        made = case.tuned[twin.evading.id]
        assert made.attack_success > 0.8
        assert made.clean_accuracy > 0.9


def test_a_fine_tuned_model_says_what_it_was_and_what_it_evades(
    case: Case, small_detector_file: Path
) -> None:
    twin = case.plan.measured[0]
    header = zoo_file.load(case.plan.folder / f"{twin.evading.id}.safetensors").header
    assert header["spec"]["fine_tuning"] == {
        "model": twin.before.id,
        "training": {**SETTINGS.training()},
        "seed": 0,
        "detector": sha256_of(small_detector_file),
        "weight": 2.0,
        "aim": "low",
    }
    assert {**header["spec"], "fine_tuning": None} == {
        **twin.before.spec.to_json(),
        "fine_tuning": None,
    }
    assert header["steps"] == 4 * (len(_training_images(twin.before.path)) // 64)
    for spec, weight in ((twin.fine_tuned, 0.0), (twin.clean, 0.0)):
        assert spec.fine_tuning is not None
        assert (spec.fine_tuning.detector, spec.fine_tuning.weight) == (None, weight)


def _training_images(path: Path) -> range:
    """1352 images and half of one class's again: what 6 epochs in batches of 64 come to."""
    steps = zoo_file.load(path).header["steps"]
    return range(steps // 6 * 64)


def test_it_is_a_zoo_whose_files_are_true_but_cannot_be_trained_from_scratch(case: Case) -> None:
    zoo = Zoo.open(case.plan.folder)
    assert zoo.recipe["name"] == "small-fine-tuned"
    assert len(zoo.entries) == 10
    assert all(finding.problem is None for finding in verify(zoo.path, remeasure=3))
    problems = [finding.problem for finding in verify(zoo.path, retrain=1)]
    assert sum("can't be trained from its spec alone" in str(p) for p in problems) == 1


def test_what_is_there_is_not_made_again_and_what_is_lost_comes_back_the_same(
    case: Case, small_zoo: Zoo, small_detector_file: Path
) -> None:
    fewer = make_plan(small_zoo, small_detector_file, case.plan.folder, models=1, settings=SETTINGS)
    assert [twin.evading for twin in fewer.measured] == [case.plan.measured[0].evading]
    victims = [
        case.plan.folder / f"{spec.id}.safetensors"
        for spec in (fewer.measured[0].evading, fewer.measured[0].clean)
    ]
    before = [victim.read_bytes() for victim in victims]
    for victim in victims:
        victim.unlink()
    with pytest.raises(ZooError, match="a fine-tuned model is missing"):
        read_tuned(fewer)
    events = list(tune(fewer))
    assert [event.kind for event in events] == ["found", "accepted", "accepted"]
    assert [victim.read_bytes() for victim in victims] == before
    assert [event.kind for event in tune(fewer)] == ["found"]


def test_rows_are_of_every_detector_on_every_group(case: Case) -> None:
    rows = case.result.rows
    assert [(r.detector, r.group) for r in rows] == [
        (detector, group) for detector in ("small", "refitted") for group in GROUPS
    ]
    assert {(r.n_clean, r.n_backdoored) for r in rows} == {(2, 2)}
    ids = {
        group: {m.entry.id for m in models} for group, models in case.result.models["small"].items()
    }
    clean = {twin.clean.id for twin in case.plan.measured}
    assert ids["fine-tuned"] & ids["evading"] == clean
    assert not ids["as trained"] & (ids["fine-tuned"] | ids["evading"])
    attacked = {r.group: r.auc for r in rows if r.detector == "small"}
    assert attacked["evading"] < attacked["fine-tuned"]
    assert case.result.n_added == (2, 2)
    assert (case.result.attacked, case.result.not_attacked) == (("ulp",), ())


def test_models_that_fail_the_gate_are_counted_and_not_judged(
    case: Case, small_detector: ULPDetector
) -> None:
    first, second = case.plan.measured
    made = case.tuned[first.evading.id]
    failed = replace(made, entry=None, rejection="attack success 0.1", attack_success=0.1)
    result = study(
        case.plan,
        {"small": small_detector},
        tuned={**case.tuned, first.evading.id: failed},
        fpr=0.1,
    )
    evading = next(m for m in result.measured if m.group == "evading")
    assert (evading.n, evading.passed) == (2, 0.5)
    other = case.tuned[second.evading.id].attack_success
    assert evading.attack_success == pytest.approx((0.1 + other) / 2)
    assert [r.n_backdoored for r in result.rows] == [2, 2, 1]
    assert result.n_added is None


def test_a_model_that_failed_is_not_tried_again(
    small_zoo: Zoo, small_detector_file: Path, tmp_path: Path
) -> None:
    plan = make_plan(small_zoo, small_detector_file, tmp_path, models=1, settings=SETTINGS)
    for spec in plan.specs():
        facts = {"reason": "lost", "clean_accuracy": 0.5, "attack_success": 0.25}
        write_rejected(tmp_path, spec.id, facts)
    assert [event.kind for event in tune(plan)] == ["found"]
    assert {(t.rejection, t.clean_accuracy) for t in read_tuned(plan).values()} == {("lost", 0.5)}


def test_a_refit_is_of_the_same_kind_on_more_models_and_keeps_twins_together(
    case: Case, small_detector: ULPDetector
) -> None:
    refitted = case.refitted
    assert isinstance(refitted, ULPDetector)
    assert refitted.num_patterns == small_detector.num_patterns
    assert refitted.scope["settings"] == small_detector.scope["settings"]
    assert refitted.scope["num_models"] == small_detector.scope["num_models"] + 4
    assert len(refitted.calibration.scores) == len(small_detector.calibration.scores) + 2
    assert refitted.unseen is not None
    member_of: dict[int, int] = {}
    for entry, member in zip(refitted.unseen.entries, refitted.unseen.members, strict=True):
        assert member_of.setdefault(entry.spec.twin, member) == member
    test_triggers = {twin.before.trigger_id for twin in case.plan.measured}
    assert not test_triggers & set(refitted.scope["triggers"])


def test_another_zoos_twins_are_numbered_apart(
    case: Case, small_zoo: Zoo, small_detector: ULPDetector
) -> None:
    added = added_models(case.plan, case.tuned)
    before = {twin.before.spec.twin for twin in case.plan.added}
    rest = [e for e in small_zoo.entries if e.spec.twin not in before]
    refitted = refit(small_detector, replace(small_zoo, entries=tuple(rest)), added)
    assert refitted.unseen is not None
    numbers = {entry.id: entry.spec.twin for entry in refitted.unseen.entries}
    known = {entry.spec.twin for entry in rest}
    assert all(numbers[entry.id] not in known for entry in added)


def test_a_refit_on_the_triggers_that_are_measured_is_refused(case: Case, small_zoo: Zoo) -> None:
    check_apart(small_zoo, case.plan)
    mixed = replace(case.plan, measured=case.plan.added, added=())
    with pytest.raises(ZooError, match="triggers to measure on are among those to fit on"):
        check_apart(small_zoo, mixed)


def test_a_refit_has_the_folds_that_the_detector_had(
    small_zoo: Zoo, small_detector: ULPDetector
) -> None:
    assert small_detector.scope["folds"] == "twin"
    by_family = replace(small_detector, scope={**small_detector.scope, "folds": "architecture"})
    with pytest.raises(ZooError, match="too few families of architectures"):
        refit(by_family, small_zoo, [])


def test_a_fused_detector_is_refitted_with_all_of_its_settings(small_zoo: Zoo) -> None:
    weight_decay: dict[str, Any] = {"last_layer.weight_decay": 0.5}
    fused = FusedDetector.fit(
        small_zoo,
        members=2,
        num_patterns=2,
        epochs=2,
        parts="ulp+last_layer",
        **weight_decay,
    )
    again = refit(fused, small_zoo, [])
    assert isinstance(again, FusedDetector)
    assert tuple(again.parts) == tuple(fused.parts)
    for name, part in fused.parts.items():
        assert again.parts[name].scope["settings"] == part.scope["settings"]
        for array, expected in zip(
            again.parts[name].arrays().values(), part.arrays().values(), strict=True
        ):
            np.testing.assert_array_equal(array, expected)


PROVENANCE: Mapping[str, object] = {
    "command": "litmus evade zoo",
    "seeds": [0],
    "machine": machine_facts(),
    "litmus_version": "1",
    "torch_version": "2",
}


def test_the_reports_have_the_figures(case: Case) -> None:
    files = evasion_files(case.result, PROVENANCE)
    content = json.loads(files["evasion-low.json"])
    assert content["command"] == "litmus evade zoo"
    assert len(content["rows"]) == 6
    assert len(content["tuned"]) == 10
    assert len(content["models"]) == 2 * 3 * 4
    assert {t["weight"] for t in content["tuned"]} == {0.0, 2.0}
    assert content["fine_tuning"]["weight"] == 2.0
    row = case.result.rows[2]
    for text in (files["evasion-low.md"], evasion_text(case.result)):
        assert f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})" in text
        assert "backdoored, evading" in text
    first = " ".join(files["evasion-low.md"].split())
    assert "on 2 evading models and 2 fine-tuned clean ones" in first
    assert "2 times the softplus of the log-odds of a backdoor according to `small`" in first
    nearer = replace(case.plan, settings=replace(SETTINGS, aim="clean"))
    partly = replace(case.result, plan=nearer, not_attacked=("max_margin",), n_added=None)
    page = evasion_files(partly, PROVENANCE)["evasion-clean.md"]
    assert "Not attacked, for want of a gradient: max_margin." in page
    assert "the median clean model" in " ".join(page.split())
    assert "refitted" not in page.split("## What to know")[-1]


def test_mistakes_are_told_before_anything_is_made(
    small_zoo: Zoo, small_detector: ULPDetector, small_detector_file: Path, tmp_path: Path
) -> None:
    def plan(models: int = 1) -> Plan:
        return make_plan(small_zoo, small_detector_file, tmp_path / "out", models=models)

    with pytest.raises(UsageError, match="--models is impossible"):
        plan(0)
    with pytest.raises(ZooError, match=r"too few twins in the test split .*got 8"):
        plan(9)
    with pytest.raises(UsageError, match="--workers is impossible"):
        next(tune(plan(), workers=0))
    other = InputSpec(channels=3, height=32, width=32, num_classes=10)
    stranger = replace(small_detector, input_spec=other)
    with pytest.raises(LitmusError, match="is for other models"):
        study(plan(), {"other": stranger}, tuned={}, fpr=0.1)
    with pytest.raises(UsageError, match="n = 12"):
        study(plan(), {"small": small_detector}, tuned={}, fpr=0.01)
    assert not (tmp_path / "out").exists()
    wrong: dict[str, Any] = {"weight": 0.0, "learning_rate": -1.0, "epochs": 0}
    for field, value in wrong.items():
        with pytest.raises(UsageError, match=f"{field} is impossible"):
            replace(SETTINGS, **{field: value})
    unknown: dict[str, Any] = {"aim": "up"}
    with pytest.raises(UsageError, match="unknown aim"):
        replace(SETTINGS, **unknown)
