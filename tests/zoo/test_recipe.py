from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from litmus.architectures import ARCHITECTURES
from litmus.errors import RecipeError
from litmus.zoo import load_recipe
from litmus.zoo.recipe import parse_recipe
from tests.conftest import REPOSITORY, tiny_recipe_table

RECIPE = """
name = "two kinds"
twins = 10
[dataset]
name = "folder"
image_size = 48
channels = 1
[[architecture]]
name = "vgg"
configuration = [1, "M", 2]
[[architecture]]
name = "lenet5"
[training]
epochs = 2
peak_learning_rate = 1
[[attack]]
name = "patch"
[[attack]]
name = "patch"
place = "fixed"
row = -5
column = 0
label_map = "all_to_one"
poison_ratio = 0.25
"""


def test_a_recipe_is_read_and_its_defaults_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text(RECIPE)
    recipe = load_recipe(path)
    table = recipe.to_json()
    assert table["dataset"]["image_size"] == 48
    assert recipe.dataset.options() == {"image_size": 48, "channels": 1}
    assert [a["name"] for a in table["architectures"]] == ["vgg", "lenet5"]
    assert table["architectures"][0]["configuration"] == [1, "M", 2]
    assert table["architectures"][1]["activation"] == "relu"
    assert table["training"]["peak_learning_rate"] == 1.0
    assert [a["options"] for a in table["attacks"]] == [
        {},
        {"place": "fixed", "row": -5, "column": 0},
    ]
    assert [a["poison_ratio"] for a in table["attacks"]] == [0.5, 0.25]
    assert table["triggers"] == {
        "binary": 10, "colour": 0, "size": 5, "seed": 0, "train": 5, "test": 5
    }  # fmt: skip
    assert table["gates"] == {"clean_accuracy": 0.0, "attack_success": 0.9}
    assert (table["seed"], table["test_share"]) == (0, 0.5)
    assert load_recipe(str(path)) == recipe


FROZEN = tomllib.loads((REPOSITORY / "recipes" / "frozen.toml").read_text())
# Those of `generalisation` are plans of comparisons, those of `bundled` name a zoo and a fit: see
# tests/evaluation/test_variants.py and tests/test_bundled.py.
RECIPES = sorted(
    path
    for path in (REPOSITORY / "recipes").glob("*/*.toml")
    if path.parent.name not in ("generalisation", "bundled")
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.name))
def test_the_recipes_of_this_repository_are_right(path: Path) -> None:
    recipe = load_recipe(path)
    used = {
        "architectures": {drawn.table["name"] for drawn in recipe.architectures},
        "attacks": {drawn.table["name"] for drawn in recipe.attacks},
    }
    frozen = {kind: names & set(FROZEN[kind]) for kind, names in used.items()}
    if str(path.relative_to(REPOSITORY / "recipes")) in FROZEN["recipes"]:
        assert recipe.test_share == 1
        assert any(names == used[kind] for kind, names in frozen.items())
    else:
        assert not any(frozen.values())


@pytest.mark.parametrize(
    ("changes", "where", "expected", "got"),
    [
        # unknown keys
        (
            {"twinz": 3},
            "",
            "name, seed, twins, test_share, controls, attempts, start_from, [dataset]",
            "twinz",
        ),
        ({"attacks": {}}, "", "[attack]", "attacks"),
        ({"training": {"epohcs": 1}}, ": training.epohcs", "epochs, batch_size", "epohcs"),
        ({"dataset": {"size": 1}}, ": dataset.size", "image_size", "size"),
        ({"architecture": {"widht": 1}}, ": architecture.widht", "width", "widht"),
        ({"attack": {"plaec": 1}}, ": attack.plaec", "place", "plaec"),
        ({"attack": {"options": {}}}, ": attack.options", "place", "options"),
        ({"attack": {"trigger": 3}}, ": attack.trigger", "a table of the trigger's kind", "3"),
        (
            {"attack": {"trigger": {"index": 1}}},
            ": attack.trigger",
            "a table of the trigger's kind",
            "{'index': 1}",
        ),
        ({"attack": {"trigger": {"sise": 1}}}, ": attack.trigger.sise", "", "sise"),
        ({"attack": {"more_triggers": 0}}, ": attack.more_triggers", "equal to 1", "0"),
        ({"training": {"stop": 0}}, ": training.stop", "greater than 0", "0"),
        ({"attack": {"source_class": 1}}, ": attack.source_class", "place", "source_class"),
        ({"triggers": {"grey": 1}}, ": triggers.grey", "binary", "grey"),
        ({"gates": {"asr": 1}}, ": gates.asr", "attack_success", "asr"),
        # wrong types
        ({"twins": "3"}, ": twins", "a valid integer", "'3'"),
        ({"twins": 3.5}, ": twins", "a valid integer", "3.5"),
        ({"name": 3}, ": name", "a valid string", "3"),
        ({"training": 3}, ": training", "a table [training]", "3"),
        ({"architecture": "vgg"}, ": architecture", "a table [architecture]", "'vgg'"),
        ({"architecture": []}, ": architecture", "a table [architecture]", "[]"),
        ({"attack": None}, ": attack", "a table [attack]", "None"),
        ({"training": {"flip": 1}}, ": training.flip", "a valid boolean", "1"),
        ({"training": {"epochs": True}}, ": training.epochs", "a valid integer", "True"),
        ({"attack": {"place": 1}}, ": attack.place", "'corner'", "1"),
        # impossible values
        ({"twins": 1}, ": twins", "greater than or equal to 2", "1"),
        ({"test_share": 1.5}, ": test_share", "less than or equal to 1", "1.5"),
        ({"dataset": {"name": "imagenet"}}, ": dataset.name", "'digits'", "'imagenet'"),
        ({"architecture": {"name": "vit"}}, ": architecture.name", "one of vgg", "'vit'"),
        ({"attack": {"name": "blend"}}, ": attack.name", "one of patch", "'blend'"),
        ({"attack": {"label_map": "one"}}, ": attack.label_map", "'source_specific'", "'one'"),
        ({"attack": {"place": "middle"}}, ": attack.place", "'corner'", "'middle'"),
        ({"attack": {"poison_ratio": 0}}, ": attack.poison_ratio", "greater than 0", "0"),
        ({"training": {"batch_size": 1}}, ": training.batch_size", "equal to 2", "1"),
        (
            {"training": {"weight_decay": float("inf")}},
            ": training.weight_decay",
            "a finite number",
            "inf",
        ),
        ({"gates": {"attack_success": 1.0}}, ": gates.attack_success", "less than 1", "1.0"),
    ],
)
def test_a_mistake_is_named_by_file_key_expected_and_got(
    changes: dict[str, Any], where: str, expected: str, got: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tiny_recipe_table(**changes), "zoo.toml")
    assert str(caught.value.where) == f"zoo.toml{where}"
    assert expected in str(caught.value.expected)
    assert str(caught.value.got) == got


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"triggers": {"train": 3}}, ": triggers", "train 3 + test 2 triggers are more than"),
        ({"dataset": {"channels": 1}}, ": dataset", "are for the data set 'folder'"),
        ({"attack": {"place": "fixed", "row": 1}}, ": attack", "row and column"),
        ({"attack": {"row": 3}}, ": attack", "row and column go with place 'fixed'"),
        (
            {"architecture": {"configuration": ["M"]}},
            ": architecture",
            "must begin with a convolution",
        ),
    ],
)
def test_values_that_do_not_go_together(changes: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tiny_recipe_table(**changes), "zoo.toml")
    assert caught.value.where == f"zoo.toml{where}"
    assert message in str(caught.value)


def test_the_second_of_several_tables_is_named_by_its_number() -> None:
    table = tiny_recipe_table(architecture=[{"name": "vgg"}, {"name": "vgg", "width": 0}])
    with pytest.raises(RecipeError) as caught:
        parse_recipe(table, "zoo.toml")
    assert caught.value.where == "zoo.toml: architecture[1].width"


@pytest.mark.parametrize("key", ["name", "twins"])
def test_a_missing_key_is_named(key: str) -> None:
    table = tiny_recipe_table()
    del table[key]
    with pytest.raises(RecipeError, match=f"zoo.toml: {key}: a key is missing"):
        parse_recipe(table, "zoo.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "not TOML: Invalid value (at end of document)"),
        (b"name = 'a'\nname = 'b'", "not TOML: Cannot overwrite a value"),
        (b"\xff\xfe", "not TOML: 'utf-8' codec can't decode"),
    ],
)
def test_what_is_not_toml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "zoo.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: can't be read: No such file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="can't be read: Is a directory"):
        load_recipe(tmp_path)


def test_every_architecture_may_be_in_a_recipe() -> None:
    table = tiny_recipe_table(architecture=[{"name": name} for name in ARCHITECTURES])
    built = parse_recipe(table, "zoo.toml").architectures
    assert [drawn.at() for drawn in built] == [cls() for cls in ARCHITECTURES.values()]


def test_a_recipe_takes_over_what_it_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "zoo.toml").write_text(RECIPE)
    (tmp_path / "other.toml").write_text(
        'base = "zoo.toml"\nname = "other"\n[[architecture]]\nname = "lenet5"\n'
    )
    base, other = load_recipe(tmp_path / "zoo.toml"), load_recipe(tmp_path / "other.toml")
    assert (other.name, other.twins, other.dataset) == ("other", base.twins, base.dataset)
    assert [drawn.table for drawn in other.architectures] == [{"name": "lenet5"}]
    assert [a.at() for a in other.attacks] == [a.at() for a in base.attacks]


@pytest.mark.parametrize("base", ["3", '"self.toml"', '"round.toml"'])
def test_a_base_that_is_none(base: str, tmp_path: Path) -> None:
    (tmp_path / "self.toml").write_text(f"base = {base}")
    (tmp_path / "round.toml").write_text('base = "self.toml"')
    with pytest.raises(RecipeError, match="another recipe's file") as caught:
        load_recipe(tmp_path / "self.toml")
    assert str(caught.value.where).endswith(".toml: base")
    (tmp_path / "self.toml").write_text('base = "gone.toml"')
    with pytest.raises(RecipeError, match=r"gone\.toml: can't be read"):
        load_recipe(tmp_path / "self.toml")


def test_samplers_stand_in_the_recipe_as_they_were_given() -> None:
    width = {"integers": [2, 5]}
    table = tiny_recipe_table(
        architecture={"width": width}, training=[{"epochs": 1}, {"stop": {"uniform": [0.5, 1]}}]
    )
    recipe = parse_recipe(table, "zoo.toml")
    resolved = recipe.to_json()
    assert resolved["architectures"] == [table["architecture"]]
    assert resolved["training"][0]["batch_size"] == 64
    assert resolved["training"][1] == {"stop": {"uniform": [0.5, 1]}}
    assert [recipe.architectures[0].samples, recipe.trainings[0].samples] == [True, False]


def test_a_drawn_value_that_is_impossible_is_found_when_the_recipe_is_read() -> None:
    table = tiny_recipe_table(architecture={"width": {"choice": [2, 3, 4, 5, 0]}})
    with pytest.raises(RecipeError, match="greater than or equal to 1") as caught:
        parse_recipe(table, "zoo.toml")
    assert caught.value.where == "zoo.toml: architecture.width"
