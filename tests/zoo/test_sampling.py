from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from litmus.errors import RecipeError
from litmus.zoo.sampling import Drawn, draw_table, uniform


def draws(sampler: Any, count: int = 400) -> list[Any]:
    return [draw_table({"value": sampler}, "t", "seed", i)["value"] for i in range(count)]


def test_a_table_without_samplers_stays_as_it_is() -> None:
    table = {"a": 1, "b": [1, "M"], "c": {"choice": [1], "other": 2}, "d": {}}
    assert draw_table(table, "t", 0) == table
    assert not Drawn(table=table, make=lambda t, where: t, where="t").samples


def test_uniform_numbers_fill_their_interval() -> None:
    values = sorted(uniform("x", i) for i in range(1000))
    assert 0 <= values[0] < 0.01
    assert 0.99 < values[-1] < 1
    assert abs(values[500] - 0.5) < 0.05


def test_choices_are_about_equally_frequent() -> None:
    counts = Counter(draws({"choice": ["a", "b", "c", "d"]}))
    assert set(counts) == set("abcd")
    assert all(70 <= count <= 130 for count in counts.values())


def test_integers_include_both_bounds() -> None:
    counts = Counter(draws({"integers": [1, 4]}))
    assert set(counts) == {1, 2, 3, 4}
    assert draws({"integers": [3, 3]}, 5) == [3] * 5


def test_uniform_and_log_uniform_stay_within_their_bounds_and_are_rounded() -> None:
    linear, logarithmic = draws({"uniform": [1, 100]}), draws({"log_uniform": [1, 100]})
    for values in (linear, logarithmic):
        assert all(1 <= value <= 100 and float(f"{value:.3g}") == value for value in values)
    assert 40 < sorted(linear)[200] < 60
    assert 8 < sorted(logarithmic)[200] < 12.5


def test_samplers_within_choices_lists_and_tables_are_drawn() -> None:
    nested = {"choice": [{"size": {"integers": [1, 3]}}, {"size": 9}]}
    assert {value["size"] for value in draws(nested)} == {1, 2, 3, 9}
    pairs = draws([{"integers": [0, 9]}, {"integers": [0, 9]}])
    assert len({tuple(pair) for pair in pairs}) > 80  # the two are drawn independently


def test_a_draw_depends_on_seed_and_key_alone() -> None:
    width = {"integers": [0, 10**9]}
    one = draw_table({"width": width, "depth": 1}, "here", 7, "a")
    other = draw_table({"width": width, "depth": width}, "there", 7, "a")
    assert one["width"] == other["width"] != other["depth"]
    assert draw_table({"width": width}, "t", 7, "b")["width"] != one["width"]


@pytest.mark.parametrize(
    ("sampler", "where", "got"),
    [
        ({"choice": []}, "t.value.choice", "[]"),
        ({"choice": 3}, "t.value.choice", "3"),
        ({"integers": [1, 2.5]}, "t.value.integers", "[1, 2.5]"),
        ({"integers": [3, 2]}, "t.value.integers", "[3, 2]"),
        ({"integers": [True, 2]}, "t.value.integers", "[True, 2]"),
        ({"uniform": [1]}, "t.value.uniform", "[1]"),
        ({"uniform": "1, 2"}, "t.value.uniform", "'1, 2'"),
        ({"log_uniform": [0, 1]}, "t.value.log_uniform", "0"),
    ],
)
def test_impossible_samplers(sampler: dict[str, Any], where: str, got: str) -> None:
    with pytest.raises(RecipeError) as caught:
        draw_table({"value": sampler}, "t", 0)
    assert caught.value.where == where
    assert str(caught.value.got) == got
