from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import Recipe, parse_recipe
from litmus.zoo.spec import ModelSpec
from tests.conftest import tiny_recipe_table

TEN = InputSpec(channels=1, height=28, width=28, num_classes=10)
FOUR = InputSpec(channels=3, height=32, width=32, num_classes=4)


def recipe(**changes: Any) -> Recipe:
    defaults: dict[str, Any] = {
        "twins": 900,
        "triggers": {"binary": 10, "train": 5, "test": 5},
        "attack": {"label_map": "source_specific"},
    }
    return parse_recipe(tiny_recipe_table(**{**defaults, **changes}), "zoo.toml")


@pytest.fixture(scope="module")
def paper() -> list[ModelSpec]:
    """The paper's MNIST zoo: 900 twins, 90 pairs of classes, five triggers a split."""
    return expand(recipe(), TEN)


def pair(spec: ModelSpec) -> tuple[int, int]:
    return spec.attack["source_class"], spec.attack["target_class"]


@pytest.mark.parametrize("twins", [10, 37])
@pytest.mark.parametrize("test_share", [0.5, 0.3, 0.0])
def test_scales_are_nested(twins: int, test_share: float) -> None:
    chosen = recipe(twins=twins, test_share=test_share)
    whole = expand(chosen, TEN)
    assert len(whole) == 2 * twins
    for scale in (0.01, 0.2, 0.5, 0.77, 1.0):
        part = expand(chosen, TEN, scale=scale)
        assert len(part) == 2 * max(1, round(scale * twins))
        assert part == whole[: len(part)]
        # Each part has its share of test twins, to within one.
        test = sum(spec.split == "test" for spec in part) / 2
        assert abs(test - test_share * len(part) / 2) <= 1


def test_more_twins_keep_the_ones_there_are() -> None:
    assert expand(recipe(twins=40), TEN)[:20] == expand(recipe(twins=10), TEN)


def test_twins_differ_in_treatment_alone(paper: list[ModelSpec]) -> None:
    for bad, clean in zip(paper[::2], paper[1::2], strict=True):
        assert bad.backdoored
        assert not clean.backdoored
        differing = {k for k, v in bad.to_json().items() if clean.to_json()[k] != v}
        assert differing == {"treatment"}


def test_triggers_of_train_and_test_are_disjoint_and_all_used(paper: list[ModelSpec]) -> None:
    used: dict[str, Counter[int]] = {"train": Counter(), "test": Counter()}
    for spec in paper:
        used[spec.split][spec.attack["trigger"]["index"]] += 1
    assert not used["train"].keys() & used["test"].keys()
    assert used["train"].keys() | used["test"].keys() == set(range(10))
    assert all(set(counter.values()) == {180} for counter in used.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_draws_the_split_of_the_triggers(seed: int) -> None:
    split = {
        spec.attack["trigger"]["index"]
        for spec in expand(recipe(seed=seed, twins=20), TEN)
        if spec.split == "test"
    }
    other = {
        spec.attack["trigger"]["index"]
        for spec in expand(recipe(seed=seed + 2, twins=20), TEN)
        if spec.split == "test"
    }
    assert len(split) == len(other) == 5
    assert split != other


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_pair_meets_every_trigger_and_both_controls(
    paper: list[ModelSpec], split: str
) -> None:
    backdoored = [spec for spec in paper if spec.split == split and spec.backdoored]
    controls = [spec for spec in paper if spec.split == split and not spec.backdoored]
    assert set(Counter(map(pair, backdoored)).values()) == {5}
    assert len({pair(spec) for spec in backdoored}) == 90
    with_trigger = Counter((pair(s), s.attack["trigger"]["index"]) for s in backdoored)
    assert set(with_trigger.values()) == {1}
    assert len(with_trigger) == 450
    kinds = Counter(spec.treatment for spec in controls)
    assert kinds == {"control_copies": 225, "control_kept_label": 225}
    by_trigger = Counter((s.attack["trigger"]["index"], s.treatment) for s in controls)
    assert set(by_trigger.values()) == {45}
    by_pair = Counter((pair(spec), spec.treatment) for spec in controls)
    assert set(by_pair.values()) == {2, 3}
    # Not the twins' order either: neither kind comes first in all rounds.
    first_round, second_round = controls[:90], controls[90:180]
    assert [s.treatment for s in first_round] != [s.treatment for s in second_round]


def test_a_pair_is_never_of_one_class_and_a_first_round_has_all() -> None:
    specs = [s for s in expand(recipe(twins=24), FOUR) if s.backdoored]
    for split in ("train", "test"):
        pairs = [pair(spec) for spec in specs if spec.split == split]
        assert sorted(pairs) == [(a, b) for a in range(4) for b in range(4) if a != b]


def test_unique_pairs_are_used_once_over_both_splits() -> None:
    attack = {"label_map": "source_specific", "pairs": "unique"}
    specs = [s for s in expand(recipe(twins=12, attack=attack), FOUR) if s.backdoored]
    assert len({pair(spec) for spec in specs}) == 12
    assert {spec.split for spec in specs} == {"train", "test"}
    many = recipe(twins=13, attack=attack)
    assert len(expand(many, FOUR, scale=0.9)) == 24
    with pytest.raises(RecipeError, match=r"unique .* \(expected twins <= 12, got 13\)"):
        expand(many, FOUR)


@pytest.mark.parametrize(
    ("label_map", "classes"),
    [("all_to_one", {"target_class"}), ("all_to_all", set()), ("untargeted", set())],
)
def test_other_label_maps_get_the_classes_they_need(label_map: str, classes: set[str]) -> None:
    specs = expand(recipe(twins=16, attack={"label_map": label_map}), FOUR)
    for spec in specs:
        assert {k for k in spec.attack if k in {"source_class", "target_class"}} == classes
        assert spec.build_attack().label_map == label_map
    if classes:
        targets = Counter(s.attack["target_class"] for s in specs if s.split == "train")
        assert targets == dict.fromkeys(range(4), 4)


def test_architectures_and_attacks_take_turns_and_meet_each_other() -> None:
    changes: dict[str, Any] = {
        "twins": 96,
        "architecture": [{"name": "vgg", "width": 2}, {"name": "lenet5"}],
        "attack": [
            {"name": "patch", "place": "corner"},
            {"name": "patch", "place": "surface", "label_map": "all_to_one"},
        ],
    }
    specs = expand(recipe(**changes), FOUR)
    for split in ("train", "test"):
        met = Counter(
            (s.architecture["name"], s.attack["place"], s.treatment)
            for s in specs
            if s.split == split and not s.backdoored
        )
        assert len(met) == 8
        assert set(met.values()) == {6}


@pytest.mark.parametrize("architectures", [1, 2, 3, 6])
@pytest.mark.parametrize("spec", [FOUR, TEN], ids=["4 classes", "10 classes"])
def test_controls_are_half_and_half_and_every_pair_meets_both(
    spec: InputSpec, architectures: int
) -> None:
    rounds = 4 * spec.num_classes * (spec.num_classes - 1) * architectures
    tables = [{"name": "vgg", "width": width + 1} for width in range(architectures)]
    specs = expand(recipe(twins=2 * rounds, architecture=tables), spec)
    for split in ("train", "test"):
        controls = [s for s in specs if s.split == split and not s.backdoored]
        assert Counter(s.treatment for s in controls) == {
            "control_copies": rounds / 2,
            "control_kept_label": rounds / 2,
        }
        met = Counter((s.architecture["width"], pair(s), s.treatment) for s in controls)
        assert set(met.values()) == {2}
        assert len(met) == rounds / 2


def test_every_attack_goes_through_all_pairs_and_triggers() -> None:
    ratios = (0.5, 0.25, 0.1, 0.05)
    tables = [{"name": "patch", "poison_ratio": ratio} for ratio in ratios]
    specs = expand(recipe(twins=2 * 4 * 90, attack=tables), TEN)
    for split in ("train", "test"):
        chosen = [s for s in specs if s.split == split and s.backdoored]
        assert set(Counter((s.attack["poison_ratio"], pair(s)) for s in chosen).values()) == {1}
        of_ratio = Counter((s.attack["poison_ratio"], s.build_attack().trigger_id) for s in chosen)
        assert set(of_ratio.values()) == {18}


def test_a_recipe_without_controls_has_the_same_backdoored_models() -> None:
    whole = expand(recipe(twins=20), TEN)
    assert expand(recipe(twins=20, controls=False), TEN) == whole[::2]


def test_colour_triggers_join_the_pool() -> None:
    table = {"binary": 2, "colour": 2, "train": 2, "test": 2, "size": 3, "seed": 7}
    specs = expand(recipe(twins=8, triggers=table), FOUR)
    triggers = {spec.build_attack().trigger_id for spec in specs}
    assert triggers == {
        f"{kind}-{i}-s3-set7" for kind in ("binary", "colour") for i in range(2)
    }  # fmt: skip


JUMBO: dict[str, Any] = {
    "twins": 60,
    "test_share": 0.25,
    "architecture": [
        {"name": "vgg", "width": {"integers": [2, 9]}},
        {"name": "lenet5", "activation": {"choice": ["relu", "tanh"]}},
        {"name": "badnets_cnn"},
    ],
    "training": [{"name": "a", "epochs": {"integers": [1, 3]}}, {"name": "b"}],
    "attack": [
        {
            "name": "patch",
            "pairs": "random",
            "label_map": {"choice": ["all_to_one", "source_specific"]},
            "trigger": {"kind": "white", "size": {"integers": [1, 6]}},
            "place": "fixed",
        },
        {"name": "pixels", "label_map": "all_to_all", "count": {"integers": [1, 4]}},
        {"name": "patch", "label_map": "untargeted", "more_triggers": 2, "trigger": {"size": 3}},
    ],
}


@pytest.fixture(scope="module")
def jumbo() -> list[ModelSpec]:
    return expand(recipe(seed=7, **JUMBO), TEN)


def test_a_sampled_recipe_gives_a_bit_of_everything(jumbo: list[ModelSpec]) -> None:
    assert {spec.training["name"] for spec in jumbo} == {"a", "b"}
    widths = {s.architecture["width"] for s in jumbo if s.architecture["name"] == "vgg"}
    assert len(widths) >= 5
    # After a round through the architectures every kind of attack has been met, too.
    assert {spec.attack["name"] for spec in jumbo[:6]} == {"patch", "pixels"}
    both = {(s.architecture["name"], s.attack["name"], s.attack["label_map"]) for s in jumbo}
    assert len(both) == 3 * 4
    targets = Counter(s.attack["target_class"] for s in jumbo if "target_class" in s.attack)
    assert len(targets) >= 7


def test_a_sampled_models_values_do_not_depend_on_the_scale(jumbo: list[ModelSpec]) -> None:
    part = expand(recipe(seed=7, **JUMBO), TEN, scale=0.4)
    assert part == jumbo[: len(part)]
    assert expand(recipe(seed=8, **JUMBO), TEN)[:20] != jumbo[:20]


def test_sampled_twins_differ_in_treatment_alone(jumbo: list[ModelSpec]) -> None:
    for bad, clean in zip(jumbo[::2], jumbo[1::2], strict=True):
        differing = {k for k, v in bad.to_json().items() if clean.to_json()[k] != v}
        assert differing == {"treatment"}


def test_where_an_attack_describes_its_trigger_every_model_has_a_new_one(
    jumbo: list[ModelSpec],
) -> None:
    backdoored = [spec for spec in jumbo if spec.backdoored]
    names = [spec.build_attack().trigger_id for spec in backdoored]
    assert len(set(names)) == len(names) == 60
    several = [spec.attack for spec in backdoored if "others" in spec.attack]
    assert {len(attack["others"]) for attack in several} == {2}
    seeds = {trigger["seed"] for trigger in (several[0]["trigger"], *several[0]["others"])}
    assert seeds == {7, 8, 9}


def test_an_attack_with_one_trigger_takes_no_more() -> None:
    with pytest.raises(RecipeError, match="pixels has one trigger") as caught:
        recipe(attack={"name": "pixels", "more_triggers": 1})
    assert caught.value.where == "zoo.toml: attack.more_triggers"
