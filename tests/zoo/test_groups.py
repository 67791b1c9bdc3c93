from __future__ import annotations

import json
from dataclasses import replace

import pytest

from litmus.models import InputSpec
from litmus.zoo.expansion import expand
from litmus.zoo.groups import Seat, Waiting, seats
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from tests.conftest import tiny_recipe_table

SHAPE = InputSpec(channels=1, height=28, width=28, num_classes=10)
NETWORKS = [{"name": "vgg", "width": width, "stem_stride": 2} for width in (2, 4)]


@pytest.fixture(scope="module")
def specs() -> list[ModelSpec]:
    """Twelve models, two of the narrow network and two of the wide one in turn."""
    table = tiny_recipe_table(twins=6, test_share=0.0, architecture=NETWORKS)
    return expand(parse_recipe(table, "tiny"), SHAPE)


def widths(group: tuple[Seat, ...]) -> list[int]:
    return [seat.spec.architecture["width"] for seat in group]


def taken(waiting: Waiting, size: int) -> list[tuple[Seat, ...]]:
    groups = []
    while waiting:
        groups.append(waiting.take(size))
    return groups


def test_models_of_a_kind_get_the_places_in_turn(specs: list[ModelSpec]) -> None:
    found = seats(specs, 3)
    assert [seat.spec for seat in found] == specs
    assert [seat.place for seat in found] == [0, 1, 0, 1, 2, 0, 2, 0, 1, 2, 1, 2]
    assert seats(specs[:4], 3) == found[:4]  # a smaller scale's are the same
    assert {seat.place for seat in seats(specs, 1)} == {0}


def test_a_stack_is_of_one_kind_and_begins_with_the_first(specs: list[ModelSpec]) -> None:
    waiting = Waiting(seats(specs, 4))
    assert waiting.stacks(4) == 4
    assert (waiting.first, len(waiting)) == (specs[0], 12)
    groups = taken(waiting, 4)
    assert [widths(group) for group in groups] == [[2] * 4, [4] * 4, [2] * 2, [4] * 2]
    assert [seat.spec for seat in groups[0]] == [specs[n] for n in (0, 1, 4, 5)]
    assert all(len({seat.place for seat in group}) == len(group) for group in groups)
    other = replace(specs[1], training={**specs[1].training, "batch_size": 16})
    assert len(taken(Waiting(seats([specs[0], other], 4)), 4)) == 2


def test_one_at_a_time_keeps_the_order(specs: list[ModelSpec]) -> None:
    assert [g[0].spec for g in taken(Waiting(seats(specs, 1)), 1)] == specs


def test_a_substitute_is_next_at_the_place_of_the_one_before(specs: list[ModelSpec]) -> None:
    waiting = Waiting(seats(specs, 2))
    first, second = waiting.take(2)
    waiting.put_first([replace(second, spec=second.spec.next_attempt())])
    # The next model of the kind for the other place goes with it.
    assert [(s.spec, s.place) for s in waiting.take(2)] == [
        (specs[1].next_attempt(), 1), (specs[4], 0)
    ]  # fmt: skip
    waiting.put_first([first, second])
    assert waiting.take(2) == (first, second)


def test_the_order_can_be_another(specs: list[ModelSpec]) -> None:
    waiting = Waiting(seats(specs, 2))
    waiting.sort(lambda spec: -spec.architecture["width"])
    assert [widths(group) for group in taken(waiting, 2)] == [[4, 4]] * 3 + [[2, 2]] * 3


def test_a_seat_crosses_to_a_worker(specs: list[ModelSpec]) -> None:
    seat = seats(specs, 2)[1]
    again = Seat.from_json(json.loads(json.dumps(seat.to_json())))
    assert (again.spec, again.place) == (seat.spec, 1)
