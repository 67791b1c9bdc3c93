"""Models that wait to be made, and which of them are made together."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from litmus.artifacts import canonical_json
from litmus.zoo.spec import ModelSpec

__all__ = ["Seat", "Waiting", "kind", "named", "seats"]


def kind(spec: ModelSpec) -> str:
    """Return what models of one stack agree on: architecture, shape, training and data."""
    parts = (spec.architecture, asdict(spec.input_spec), spec.training, spec.dataset)
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A model, and its place in a stack of its `kind`.

    The place is the model's own, whoever else is in the stack: it decides which numbers share a
    processor's vector, and so how they are rounded.
    """

    spec: ModelSpec
    place: int = 0
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries for a worker, which needs no `kind`."""
        return {"spec": self.spec.to_json(), "place": self.place}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Seat:
        """Read what `to_json` wrote."""
        return cls(spec=ModelSpec.from_json(value["spec"]), place=value["place"])


def named(group: Sequence[Seat]) -> str:
    """Return what messages call the models of a group."""
    return f"model{'s' * (len(group) > 1)} {', '.join(seat.spec.id for seat in group)}"


def seats(specs: Sequence[ModelSpec], size: int) -> list[Seat]:
    """Give each model of a recipe its place in stacks of `size`; a scale's are the recipe's first.

    Models of one kind get the places in turn.
    """
    if size == 1:
        return [Seat(spec=spec) for spec in specs]
    counts: dict[str, int] = {}
    found = []
    for spec in specs:
        own = kind(spec)
        counts[own] = counts.get(own, -1) + 1
        found.append(Seat(spec=spec, place=counts[own] % size, kind=own))
    return found


class Waiting:
    """The models that wait, in their order; they are taken in stacks of one kind."""

    def __init__(self, waiting: Iterable[Seat]) -> None:
        self._all: OrderedDict[str, Seat] = OrderedDict()
        self._alike: dict[str, OrderedDict[str, Seat]] = {}
        for seat in waiting:
            self._add(seat)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def first(self) -> ModelSpec:
        """The model whose turn it is."""
        return next(iter(self._all.values())).spec

    def specs(self) -> list[ModelSpec]:
        """Return the models in their order."""
        return [seat.spec for seat in self._all.values()]

    def stacks(self, size: int) -> int:
        """Return how many stacks of `size` they are."""
        return sum(-(-len(alike) // size) for alike in self._alike.values())

    def take(self, size: int) -> tuple[Seat, ...]:
        """Take the first model, and the next ones that go with it in a stack of `size`."""
        alike = self._alike[next(iter(self._all.values())).kind]
        chosen: dict[int, Seat] = {}
        for seat in alike.values():
            chosen.setdefault(seat.place, seat)
            if len(chosen) == size:
                break
        for seat in chosen.values():
            del self._all[seat.spec.id], alike[seat.spec.id]
        return tuple(chosen.values())

    def put_first(self, group: Iterable[Seat]) -> None:
        """Make it these models' turn."""
        for seat in reversed(list(group)):
            self._add(seat)
            self._all.move_to_end(seat.spec.id, last=False)
            self._alike[seat.kind].move_to_end(seat.spec.id, last=False)

    def sort(self, key: Callable[[ModelSpec], float]) -> None:
        """Put the models into another order."""
        ordered = sorted(self._all.values(), key=lambda seat: key(seat.spec))
        self._all.clear()
        self._alike.clear()
        for seat in ordered:
            self._add(seat)

    def _add(self, seat: Seat) -> None:
        self._all[seat.spec.id] = seat
        self._alike.setdefault(seat.kind, OrderedDict())[seat.spec.id] = seat
