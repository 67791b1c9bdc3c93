from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litmus.errors import RecipeError
from litmus.evaluation import load_plan, mean_auc_difference
from litmus.metrics import auc
from litmus.zoo import load_recipe

PLAN = """
leave_out = "recipe"
groups = ["slow"]
[settings]
epochs = 3
weight_decay = 0.2
[[variant]]
name = "one"
settings = { num_patterns = 1 }
[[variant]]
name = "weights"
detector = "last_layer"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_variants_take_the_shared_settings_that_they_know(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path, PLAN))
    one, weights = plan.variant
    assert plan.settings_of(one) == {"epochs": 3, "num_patterns": 1}
    assert plan.settings_of(weights) == {"weight_decay": 0.2}
    assert (plan.leave_out, plan.groups) == ("recipe", ("slow",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('leave_out = "recipe"', 'leave_out = "colour"', "leave_out.*architecture or attack"),
        ('"weights"', '"one"', "names that differ"),
        ("last_layer", "last_lair", "variant.detector.*last_lair"),
        ("num_patterns", "patterns", "variant one: settings.*got patterns"),
        ("epochs", "epoches", "settings.*got epoches"),
        ("groups", "group", "group"),
        ("[settings]", "[settings", "not TOML"),
    ],
)
def test_a_mistake_in_a_plan_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_plan(written(tmp_path, PLAN.replace(old, new)))


def test_a_plan_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read"):
        load_plan(tmp_path / "none.toml")


PLANS = sorted((Path(__file__).resolve().parents[2] / "recipes" / "generalisation").glob("*.toml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: str(path.name))
def test_the_repositorys_plans_are_whole(path: Path) -> None:
    plan = load_plan(path)
    assert plan.leave_out == ("attack" if path.stem == "attacks" else "architecture")
    kinds = {"ulp"} if path.stem == "best" else {"last_layer", "stamps", "fused"}
    assert {variant.detector for variant in plan.variant} >= kinds
    jumbo = load_recipe(path.parents[1] / "jumbo" / "mnist.toml")
    assert set(plan.groups) <= {architecture.table["name"] for architecture in jumbo.architectures}


def models(scores: Any, groups: Any, bad: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "group": str(group),
            "treatment": "backdoored" if kind else "control_copies",
            "trigger": f"t{number}",
            "score": float(score),
        }
        for number, (score, group, kind) in enumerate(zip(scores, groups, bad, strict=True))
    ]


def test_the_difference_is_that_of_the_means_of_groups() -> None:
    generator = np.random.default_rng(0)
    bad, groups = np.arange(60) % 2 == 1, np.arange(60) // 20
    good, poor = bad + generator.normal(size=60), 0.2 * bad + generator.normal(size=60)
    expected = np.mean(
        [auc(good[groups == g], bad[groups == g]) - auc(poor[groups == g], bad[groups == g])
         for g in range(3)]
    )  # fmt: skip
    difference = mean_auc_difference(models(good, groups, bad), models(poor, groups, bad))
    assert difference.difference == pytest.approx(expected)
    assert difference.low < expected < difference.high
    same = mean_auc_difference(models(good, groups, bad), models(good, groups, bad)[::-1])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
