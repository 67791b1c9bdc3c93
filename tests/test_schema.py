from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.errors import RecipeError
from litmus.schema import ADDED_LATER, STRICT, from_table, named_from_table, to_table


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Patch:
    size: Annotated[int, Field(ge=1)] = 5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Table:
    epochs: Annotated[int, Field(ge=1, le=9)]
    rate: float = 0.5
    optimizer: Literal["adam", "sgd"] = "adam"
    row: int | None = None
    sides: tuple[Annotated[int, Field(ge=1)] | Literal["M"], ...] = (1, "M")
    patch: Patch = field(default_factory=Patch)

    def __post_init__(self) -> None:
        if self.row == self.epochs:
            raise ValueError("row and epochs are the same")


def test_a_table_makes_an_object_and_comes_back() -> None:
    table = {"epochs": 3, "rate": 1, "sides": ["M", 2], "patch": {"size": 3}}
    made = from_table(Table, table, "x.toml: training")
    assert made == Table(epochs=3, rate=1.0, sides=("M", 2), patch=Patch(size=3))
    assert isinstance(made.rate, float)
    # None is left out, tuples are lists, and every default is written out.
    assert to_table(made) == {**table, "optimizer": "adam"}
    assert from_table(Table, to_table(made), "again") == made


@pytest.mark.parametrize(
    ("table", "place", "text"),
    [
        ({"epohcs": 3, "epochs": 1}, ".epohcs", "sides, patch, got epohcs)"),
        ({}, ".epochs", "a key is missing (expected epochs)"),
        ({"epochs": "3"}, ".epochs", "wrong value (expected a valid integer, got '3')"),
        ({"epochs": 3.5}, ".epochs", "got 3.5"),
        ({"epochs": True}, ".epochs", "wrong value (expected a valid integer, got True)"),
        ({"epochs": 0}, ".epochs", "wrong value (expected greater than or equal to 1, got 0)"),
        ({"epochs": 1, "rate": "x"}, ".rate", "wrong value (expected a valid number, got 'x')"),
        ({"epochs": 1, "rate": float("nan")}, ".rate", "expected a finite number, got nan"),
        ({"epochs": 1, "rate": float("inf")}, ".rate", "expected a finite number, got inf"),
        ({"epochs": 1, "optimizer": "x"}, ".optimizer", "(expected 'adam' or 'sgd', got 'x')"),
        ({"epochs": 1, "sides": [2, "x"]}, ".sides.1", "expected a valid integer or 'M', got 'x'"),
        ({"epochs": 1, "sides": 3}, ".sides", "expected a valid array, got 3"),
        ({"epochs": 1, "patch": {"size": 0}}, ".patch.size", "greater than or equal to 1, got 0"),
        ({"epochs": 1, "patch": {"side": 0}}, ".patch.side", "unknown key (got side)"),
        ({"epochs": 1, "row": 1}, "", "row and epochs are the same"),
    ],
)
def test_an_error_names_file_key_expected_and_got(
    table: dict[str, Any], place: str, text: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        from_table(Table, table, "zoo.toml: training")
    assert caught.value.where == f"zoo.toml: training{place}"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("table", "where"), [({"epochs": 0}, "zoo.toml: epochs"), ({"epochs": 1, "row": 1}, "zoo.toml")]
)
def test_the_top_level_of_a_file_is_named_by_the_file(table: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        from_table(Table, table, "zoo.toml:")
    assert caught.value.where == where


def test_a_name_picks_the_class() -> None:
    registry: dict[str, type[Any]] = {"patch": Patch, "table": Table}
    table = {"name": "patch", "size": 7}
    assert named_from_table(registry, table, "x", "attack") == Patch(size=7)
    assert table == {"name": "patch", "size": 7}
    for name in ({"name": "blend"}, {}, {"name": 3}):
        with pytest.raises(RecipeError, match=r"x\.name: unknown attack .*one of patch, table"):
            named_from_table(registry, name, "x", "attack")


def test_a_nested_none_is_kept_unless_older_tables_lack_its_field() -> None:
    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Inner:
        old: int | None = None
        new: int | None = field(default=None, metadata=ADDED_LATER)

    @dataclass(frozen=True, kw_only=True, config=STRICT)
    class Outer:
        one: Inner = field(default_factory=Inner)
        many: tuple[Inner, ...] = (Inner(new=1), Inner())

    assert to_table(Outer()) == {
        "one": {"old": None},
        "many": [{"old": None, "new": 1}, {"old": None}],
    }
    assert to_table(Inner()) == {}
