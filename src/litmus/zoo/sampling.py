"""Recipes that sample: tables some of whose values are drawn anew for every twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from litmus.errors import RecipeError
from litmus.seeds import derive_seed

__all__ = ["Drawn", "draw_table", "uniform"]

T = TypeVar("T")

_REHEARSALS: Final = 64
"""Draws that are checked when a recipe is read; building checks each of its models."""


def uniform(*seed: object) -> float:
    """Return a number in [0, 1) that no library's random stream can change."""
    return derive_seed(*seed) / 2**63


@dataclass(frozen=True, kw_only=True)
class Drawn(Generic[T]):
    """A table of a recipe, and the object that it makes once its samplers are drawn.

    `make(table, where)` raises RecipeError where a drawn table is wrong; `where` names the table.
    """

    table: Mapping[str, Any]
    make: Callable[[Mapping[str, Any], str], T]
    where: str

    def __post_init__(self) -> None:
        for rehearsal in range(_REHEARSALS if self.samples else 1):
            self.at("rehearsal", rehearsal)

    @property
    def samples(self) -> bool:
        """Whether any value is drawn."""
        return _samples(self.table)

    def at(self, *seed: object) -> T:
        """Return the object whose samplers are drawn from `seed`; the same one for each seed."""
        return self.make(draw_table(self.table, self.where, *seed), self.where)


def draw_table(table: Mapping[str, Any], where: str, *seed: object) -> dict[str, Any]:
    """Return the table with a value in place of each sampler.

    A sampler is a table with one key: `choice = [...]` (any of these values, tables with samplers
    too), `integers = [low, high]` (both included), `uniform = [low, high]` or
    `log_uniform = [low, high]` (three significant digits). A value depends on its key's path and
    on `seed` alone. Raises RecipeError for an impossible sampler.
    """
    return {key: _draw(value, f"{where}.{key}", *seed, key) for key, value in table.items()}


def _samples(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _is_sampler(value) or any(map(_samples, value.values()))
    return isinstance(value, list) and any(map(_samples, value))


def _is_sampler(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in _SAMPLERS


def _draw(value: Any, where: str, *seed: object) -> Any:
    if isinstance(value, list):
        return [_draw(item, f"{where}[{i}]", *seed, i) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if not _is_sampler(value):
        return draw_table(value, where, *seed)
    ((kind, given),) = value.items()
    drawn = _SAMPLERS[kind](given, uniform(*seed, kind), f"{where}.{kind}")
    return _draw(drawn, where, *seed, kind)


def _choice(values: Any, u: float, where: str) -> Any:
    if not isinstance(values, list) or not values:
        raise RecipeError("wrong value", expected="a list of values", got=repr(values), where=where)
    return values[int(u * len(values))]


def _integers(bounds: Any, u: float, where: str) -> int:
    low, high = _bounds(bounds, int, where)
    return low + int(u * (high - low + 1))


def _uniform(bounds: Any, u: float, where: str) -> float:
    low, high = _bounds(bounds, float, where)
    return _rounded(low + u * (high - low))


def _log_uniform(bounds: Any, u: float, where: str) -> float:
    low, high = _bounds(bounds, float, where)
    if low <= 0:
        raise RecipeError("wrong value", expected="bounds above 0", got=low, where=where)
    return _rounded(low * math.exp(u * math.log(high / low)))


def _rounded(value: float) -> float:
    """Three significant digits: a library's last bit must not change a model's id."""
    return float(f"{value:.3g}")


def _bounds(bounds: Any, kind: type[T], where: str) -> tuple[T, T]:
    numbers = (int,) if kind is int else (int, float)
    right = (
        isinstance(bounds, list)
        and len(bounds) == 2
        and all(isinstance(b, numbers) and not isinstance(b, bool) for b in bounds)
        and bounds[0] <= bounds[1]
    )
    if not right:
        what = "whole numbers" if kind is int else "numbers"
        raise RecipeError(
            "wrong value", expected=f"two {what} [low, high]", got=repr(bounds), where=where
        )
    return bounds[0], bounds[1]


_SAMPLERS: Final[dict[str, Callable[[Any, float, str], Any]]] = {
    "choice": _choice,
    "integers": _integers,
    "uniform": _uniform,
    "log_uniform": _log_uniform,
}
