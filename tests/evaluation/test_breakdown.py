from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from litmus.detectors import Judgement
from litmus.detectors.patterns import ULPDetector
from litmus.evaluation import ALL, PROPERTIES, BreakdownRow, ModelJudgement, breakdown
from litmus.zoo import Zoo, ZooEntry

Make = Callable[..., ModelJudgement]

PATCH: dict[str, Any] = {"name": "patch", "label_map": "all_to_one", "poison_ratio": 0.1}


@pytest.fixture
def judged(small_zoo: Zoo) -> Make:
    """A function that returns what was said of a model with this attack."""
    pattern = small_zoo.entries[0]

    def make(attack: Mapping[str, Any], score: float, **spec: Any) -> ModelJudgement:
        return ModelJudgement(
            entry=entry(pattern, attack, **spec),
            judgement=Judgement(
                score=score,
                p_value=0.01 if score > 0 else 0.9,
                probability=float(score > 0),
                verdict="suspicious" if score > 0 else "no evidence found",
            ),
        )

    return make


def entry(pattern: ZooEntry, attack: Mapping[str, Any], **spec: Any) -> ZooEntry:
    return replace(pattern, spec=replace(pattern.spec, attack=attack, **spec))


@pytest.mark.parametrize(
    ("attack", "size", "alpha", "ratio"),
    [
        ({**PATCH, "trigger": {"size": 1}}, "1", "1 (opaque)", "5 to 10 %"),
        ({**PATCH, "trigger": {"size": 4}, "alpha": 0.5}, "3-4", "0.4 to 0.7", "5 to 10 %"),
        ({**PATCH, "trigger": {"size": 9}, "alpha": 0.9}, "9 or more", "0.7 to 1", "5 to 10 %"),
        ({**PATCH, "name": "pixels", "count": 1}, "1", None, "5 to 10 %"),
        ({**PATCH, "name": "pixels", "count": 3}, "2 or more pixels", None, "5 to 10 %"),
        ({**PATCH, "alpha": 0.15, "poison_ratio": 0.05}, "whole image", "up to 0.15", "up to 5 %"),
        ({**PATCH, "delta": 30.0, "poison_ratio": 1.0}, "whole image", None, "above 40 %"),
    ],
)
def test_where_an_attack_belongs(
    small_zoo: Zoo, attack: dict[str, Any], size: str, alpha: str | None, ratio: str
) -> None:
    model = entry(small_zoo.entries[0], attack)
    found = {name: value_of(model) for name, value_of in PROPERTIES.items()}
    assert found == {
        "attack": attack["name"],
        "label map": "all to one",
        "trigger size": size,
        "alpha": alpha,
        "poison ratio": ratio,
        "architecture": "vgg",
    }


def test_every_model_of_a_zoo_has_its_place(small_zoo: Zoo) -> None:
    for model in small_zoo.entries:
        assert PROPERTIES["trigger size"](model) == "5-6"
        assert PROPERTIES["poison ratio"](model) == "above 40 %"


def rows_of(
    models: list[ModelJudgement], detector: ULPDetector, **options: Any
) -> dict[str, BreakdownRow]:
    return {r.row.group: r for r in breakdown("ulp", detector, models, fpr=0.1, **options)}


def test_backdoors_of_a_kind_stand_against_all_clean_models(
    judged: Make, small_detector: ULPDetector
) -> None:
    small, large = ({**PATCH, "trigger": {"size": size}} for size in (2, 8))
    models = [
        judged(small, -1.0),
        judged(large, 3.0),
        judged(large, 4.0),
        judged(small, -2.0, treatment="control_copies"),
        judged(large, 0.5, treatment="control_kept_label"),
    ]
    rows = rows_of(models, small_detector)
    assert list(rows) == ["all", "trigger size: 2", "trigger size: 7-8"]
    assert rows["all"].row.auc == pytest.approx(5 / 6)
    assert rows["trigger size: 2"].row.auc == 0.5
    assert rows["trigger size: 7-8"].row.auc == 1.0
    assert [(r.row.n_clean, r.row.n_backdoored) for r in rows.values()] == [(2, 3), (2, 1), (2, 2)]
    assert rows["trigger size: 7-8"].row.flagged_clean == 0.5
    assert rows["trigger size: 7-8"].to_json()["value"] == "7-8"
    assert rows["all"].name == ALL
    assert rows["all"].row.tpr_at_fpr_5 is None


def test_left_out_groups_are_compared_within_themselves(
    judged: Make, small_detector: ULPDetector
) -> None:
    patch, pixels = {**PATCH, "trigger": {"size": 4}}, {**PATCH, "name": "pixels", "count": 4}
    # The second group's detector scores everything ten higher.
    models = [
        judged(patch, 1.0),
        judged(pixels, 2.0),
        judged(patch, 0.0, treatment="control_copies"),
        judged(patch, 11.0),
        judged(patch, 10.0, treatment="control_copies"),
        judged(patch, 12.0, treatment="control_copies"),
    ]
    rows = rows_of(
        models, small_detector, strata=["a", "a", "a", "b", "b", "b"], leave_out="recipe"
    )
    assert rows["all"].row.auc == pytest.approx((1 + 1 + 0.5) / 3)
    assert rows["attack: patch"].row.auc == pytest.approx((1 + 0.5) / 2)
    # The group without such a backdoor has nothing to do with it.
    assert rows["attack: pixels"].row.auc == 1.0
    assert (rows["attack: pixels"].row.n_clean, rows["attack: patch"].row.n_clean) == (1, 3)
    assert {r.row.leave_out for r in rows.values()} == {"recipe"}


def test_an_architecture_stands_against_its_own_clean_models(
    judged: Make, small_detector: ULPDetector
) -> None:
    vgg, mlp = {"name": "vgg"}, {"name": "mlp"}
    models = [
        judged(PATCH, 1.0, architecture=vgg),
        judged(PATCH, 0.0, architecture=vgg, treatment="control_copies"),
        judged(PATCH, 1.0, architecture=mlp),
        judged(PATCH, 2.0, architecture=mlp, treatment="control_copies"),
        judged(PATCH, 1.0, architecture={"name": "nin"}),
    ]
    rows = rows_of(models, small_detector)
    assert (rows["architecture: vgg"].row.auc, rows["architecture: mlp"].row.auc) == (1.0, 0.0)
    assert "architecture: nin" not in rows  # it has no clean one


def test_where_all_are_alike_there_is_nothing_to_break_down(
    judged: Make, small_detector: ULPDetector
) -> None:
    models = [judged(PATCH, 1.0), judged(PATCH, 0.0, treatment="control_copies")]
    assert breakdown("ulp", small_detector, models, fpr=0.1) == ()
