from __future__ import annotations

import numpy as np
import pytest

from litmus.metrics import auc
from litmus.reproduction import run_tasks
from litmus.reproduction.detection import cells, describe_zoo, figure5, table1, table1_tasks
from litmus.reproduction.pool import Progress
from litmus.reproduction.results import balanced, compare, of_kind
from tests.reproduction.conftest import Open

FIELDS = {
    "dataset", "detector", "num_patterns", "group", "leave_out", "against", "accuracy", "auc",
    "auc_low", "auc_high", "tpr_at_fpr_1", "tpr_at_fpr_5", "n_clean", "n_backdoored", "n_triggers",
}  # fmt: skip


def silent(done: int, total: int, note: str) -> None:
    pass


_: Progress = silent


def test_table_1_has_every_detector_with_its_numbers_of_models(opened: Open) -> None:
    study = opened()
    answers = run_tasks(table1_tasks(study), workers=1)
    result = table1(study, answers, silent)
    (table,) = result.datasets
    clean = {(r.detector, r.num_patterns): r for r in table.rows if r.against == "clean"}
    assert list(clean) == [
        ("noise", 1), ("noise", 2), ("ulp", 1), ("ulp", 2),
        ("attack_based", None), ("neural_cleanse", None),
    ]  # fmt: skip
    sizes = [(r.n_clean, r.n_backdoored) for r in clean.values()]
    assert sizes == [(8, 8)] * 4 + [(3, 3), (2, 2)]
    assert all(set(row.to_json()) >= FIELDS for row in table.rows)
    assert [r.accuracy is None for r in clean.values()] == [False] * 4 + [True] * 2
    assert clean["ulp", 2].seeds == (0, 1)
    assert {r.against for r in table.rows} == {"clean", "control_copies", "control_kept_label"}
    assert [(c.first, c.second) for c in table.comparisons] == [
        ("ulp, M = 1", "noise, M = 1"),
        ("ulp, M = 2", "noise, M = 2"),
        ("ulp, M = 2", "attack_based"),
        ("ulp, M = 2", "neural_cleanse"),
    ]
    assert set(table.cost) == {"noise, M = 1", "noise, M = 2", "ulp, M = 1", "ulp, M = 2"} | {
        "attack_based", "neural_cleanse"
    }  # fmt: skip
    assert table.zoo["n_fitted_on"] < 24
    assert {"command", "recipes", "seeds", "machine", "litmus_version"} <= set(result.provenance)

    figure = figure5(study, answers, silent)
    assert list(figure.curves["small"]) == [
        "noise, M = 1", "noise, M = 2", "ulp, M = 1", "ulp, M = 2",
        "attack_based", "neural_cleanse",
    ]  # fmt: skip
    fpr, tpr = figure.curves["small"]["attack_based"]
    assert np.trapezoid(tpr, fpr) == pytest.approx(clean["attack_based", None].auc)


def test_detectors_are_compared_on_the_models_that_both_scored(opened: Open) -> None:
    study = opened(num_patterns=(1,), seeds=(0,))
    parts = {cell.detector: cell for cell in cells(study, "small")}
    answers = run_tasks([t for c in parts.values() for t in c.tasks], workers=1)
    ours, other = (parts[name].scored(answers) for name in ("ulp", "attack_based"))
    comparison = compare(ours, other)
    assert comparison is not None
    by_id = dict(zip([e.id for e in ours.cell.entries], ours.scores[0], strict=True))
    shared = [by_id[entry.id] for entry in other.cell.entries]
    expected = auc(shared, other.backdoored) - auc(other.scores[0], other.backdoored)
    assert comparison.difference.difference == pytest.approx(expected)


def test_the_first_models_of_each_kind_are_measured(opened: Open) -> None:
    test = opened().zoos["small"].split("test")
    chosen = balanced(test, 6)
    for kind in (True, False):
        own = of_kind(test, backdoored=kind)
        assert of_kind(chosen, backdoored=kind) == own[:3]
    assert balanced(test, 1000) == test


def test_a_zoo_is_described_with_what_it_cost(opened: Open) -> None:
    zoo = opened().zoos["small"]
    table = describe_zoo(zoo)
    assert (table["n_models"], table["n_backdoored"], table["n_test"]) == (40, 20, 16)
    assert table["n_rejected"] == len(list(zoo.path.glob("*.rejected.json")))
    assert table["attack_success"] > 0.8 > 0.1 > table["attack_success_on_controls"]
    assert table["cpu_seconds_per_accepted_model"] > 0
    assert table["training_flops_per_model"] > 1e8
    assert not set(table["train_triggers"]) & set(table["test_triggers"])
