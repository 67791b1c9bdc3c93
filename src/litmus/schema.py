"""Tables of a recipe or header, checked against frozen dataclasses (pydantic does the checking)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from litmus.errors import RecipeError

__all__ = ["STRICT", "from_table", "named_from_table", "to_table"]

T = TypeVar("T")

STRICT: Final = ConfigDict(extra="forbid", strict=True)
"""For `pydantic.dataclasses.dataclass(config=STRICT)`: no unknown key, no silent conversion."""


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Return `cls(**table)`; raises RecipeError naming `where` and each key that is wrong."""
    try:
        # Strict JSON mode is what TOML means: tables are objects, whole numbers may be floats.
        return TypeAdapter(cls).validate_json(json.dumps(dict(table), default=str))
    except ValidationError as fault:
        raise _recipe_error(fault, where) from fault


def named_from_table(
    registry: Mapping[str, type[T]], table: Mapping[str, Any], where: str, noun: str
) -> T:
    """Return the class that the table's `name` picks from `registry`, made from its other keys."""
    options = dict(table)
    name = options.pop("name", None)
    if name not in registry:
        raise RecipeError(
            f"unknown {noun}",
            expected=f"one of {', '.join(registry)}",
            got=repr(name),
            where=f"{where}.name",
        )
    return from_table(registry[name], options, where)


def to_table(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain dictionaries, lists and scalars; None values are left out."""
    return {name: v for name, v in _plain(asdict(value)).items() if v is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _recipe_error(fault: ValidationError, where: str) -> RecipeError:
    first = fault.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    place = f"{where}.{key}" if key else where
    kind = first["type"]
    if kind in {"unexpected_keyword_argument", "extra_forbidden"}:
        return RecipeError("unknown key", got=key, where=place)
    if kind in {"missing", "missing_keyword_only_argument", "missing_argument"}:
        return RecipeError("a key is missing", expected=key, where=place)
    message = first["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return RecipeError(message, where=place)
    expected = message[0].lower() + message[1:]
    expected = expected.removeprefix("input should be ")
    return RecipeError("wrong value", expected=expected, got=repr(first["input"]), where=place)
