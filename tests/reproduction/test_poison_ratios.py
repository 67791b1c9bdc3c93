from __future__ import annotations

from dataclasses import replace

import pytest

from litmus.reproduction import Study, run_tasks
from litmus.reproduction import poison_ratios as module
from litmus.reproduction.poison_ratios import COMPANION, figure4, figure4_tasks, pair_up
from litmus.reproduction.results import of_kind
from litmus.reproduction.tasks import FitTask, MeasureTask
from litmus.zoo import ZooEntry
from tests.reproduction.conftest import Open
from tests.reproduction.test_detection import silent


def weaker(entry: ZooEntry, success: float) -> ZooEntry:
    """The same file as if it were of a zoo with a poison ratio of 5 % and other twins."""
    attack = {**entry.spec.attack, "poison_ratio": 0.05}
    spec = replace(entry.spec, attack=attack, twin=7 * entry.spec.twin + 3)
    return replace(entry, id=entry.id[::-1], spec=spec, attack_success=success)


@pytest.fixture
def study(opened: Open) -> Study:
    """Two ratios; at 5 % two of three attacks succeed."""
    whole = opened(num_patterns=(1,), seeds=(0,))
    zoo = whole.zoos["small"]
    bad = of_kind(zoo.entries, backdoored=True)
    entries = tuple(weaker(entry, 0.2 if i % 3 == 0 else 0.95) for i, entry in enumerate(bad))
    name = "small" + COMPANION
    return replace(
        whole,
        zoos={**whole.zoos, name: replace(zoo, entries=entries)},
        recipes={**whole.recipes, name: whole.recipes["small"]},
        images={**whole.images, name: whole.images["small"]},
        scales={**whole.scales, name: 1.0},
    )


def test_models_of_two_zoos_become_twins_in_their_order(opened: Open) -> None:
    entries = opened().zoos["small"].split("train")
    bad, clean = (of_kind(entries, backdoored=kind) for kind in (True, False))
    paired = pair_up([weaker(entry, 1.0) for entry in bad[2:]], clean)
    assert [entry.spec.twin for entry in paired] == [*range(10), *range(10)]
    assert [entry.backdoored for entry in paired] == [True] * 10 + [False] * 10
    assert [entry.id for entry in paired[10:]] == [entry.id for entry in clean[:10]]
    assert all(entry.spec.split == "train" for entry in paired)


def test_each_ratio_meets_the_same_clean_models(study: Study) -> None:
    tasks = figure4_tasks(study)
    fits = [task for task in tasks if isinstance(task, FitTask)]
    assert [(f.zoo, f.detector) for f in fits] == [
        ("small", "noise"), ("small", "ulp"),
        ("small-poison-ratios", "noise"), ("small-poison-ratios", "ulp"),
    ]  # fmt: skip
    clean = [{e.id for e in (*f.training, *f.test) if not e.backdoored} for f in fits]
    assert clean[0] == clean[1] == clean[2] == clean[3]
    ratios = [{e.spec.attack["poison_ratio"] for e in f.training if e.backdoored} for f in fits]
    assert ratios == [{0.5}, {0.5}, {0.05}, {0.05}]
    measured = [task for task in tasks if isinstance(task, MeasureTask)]
    assert {task.detector for task in measured} == {"attack_based"}


def test_the_gate_takes_models_away_and_says_so(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_GATED", 10)
    result = figure4(study, run_tasks(figure4_tasks(study), workers=1), silent)
    points = {(point.poison_ratio, point.gated): point for point in result.points}
    assert list(points) == [(0.5, False), (0.5, True), (0.05, False), (0.05, True)]
    whole, weak = points[0.05, False], points[0.05, True]
    assert whole.attack_success == pytest.approx((7 * 0.2 + 13 * 0.95) / 20)
    assert (whole.n_backdoored, whole.n_training, whole.reason) == (20, 24, None)
    assert [(r.detector, r.n_clean, r.n_backdoored) for r in whole.rows] == [
        ("noise", 8, 8), ("ulp", 8, 8), ("attack_based", 8, 8)
    ]  # fmt: skip
    assert weak.rows == ()
    assert weak.reason is not None
    assert "fewer than 10" in weak.reason
    assert weak.attack_success == pytest.approx(0.95)
    # At 50 % all pass, or so few fail that the rest are enough.
    assert points[0.5, True].rows
