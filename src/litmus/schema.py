"""Tables of a recipe or header, checked against frozen dataclasses (pydantic does the checking)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError  # noqa: TID253 - no scan gets here

from litmus.errors import RecipeError

__all__ = ["ADDED_LATER", "STRICT", "from_table", "named_from_table", "to_table"]

T = TypeVar("T")

STRICT: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `pydantic.dataclasses.dataclass(config=STRICT)`: no unknown key, no silent conversion, no
infinity."""

ADDED_LATER: Final = {"litmus": "added later"}
"""Metadata of a nested dataclass's field that older tables lack: its None is left out, so that
they, and the ids that are hashes of them, stay as they were."""


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Return `cls(**table)`; raises RecipeError naming `where` and the first key that is wrong.

    `where` is a file and a table (`zoo.toml: training`), or a file with a colon (`zoo.toml:`).
    """
    try:
        # Strict JSON mode is what TOML means: tables are objects, whole numbers may be floats.
        return TypeAdapter(cls).validate_json(json.dumps(dict(table), default=str))
    except ValidationError as fault:
        known = ", ".join(getattr(cls, "__dataclass_fields__", ()))
        raise _recipe_error(fault, where, known) from fault


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
    """Return a dataclass as plain dictionaries, lists and scalars; None values are left out.

    Dataclasses inside of it keep their None values, but for fields that are `ADDED_LATER`.
    """
    return {name: v for name, v in _plain(value).items() if v is not None}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        given = [(field, getattr(value, field.name)) for field in fields(value)]
        return {
            field.name: _plain(v)
            for field, v in given
            if v is not None or field.metadata != ADDED_LATER
        }
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _recipe_error(fault: ValidationError, where: str, known: str) -> RecipeError:
    first, *others = fault.errors(include_url=False)
    key = _key(first["loc"])
    if where.endswith(":"):  # the file's own top level
        place = f"{where} {key}" if key else where.removesuffix(":")
    else:
        place = f"{where}.{key}" if key else where
    kind = first["type"]
    if kind in {"unexpected_keyword_argument", "extra_forbidden"}:
        expected = known if len(first["loc"]) == 1 else None
        return RecipeError("unknown key", expected=expected, got=first["loc"][-1], where=place)
    if kind in {"missing", "missing_keyword_only_argument", "missing_argument"}:
        return RecipeError("a key is missing", expected=key, where=place)
    message = first["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return RecipeError(message, where=place)
    # Where a value may be one of several kinds, there is an error for each.
    messages = [message, *(other["msg"] for other in others if _key(other["loc"]) == key)]
    expected = " or ".join(text.removeprefix("Input should be ") for text in messages)
    return RecipeError("wrong value", expected=expected, got=repr(first["input"]), where=place)


def _key(location: tuple[int | str, ...]) -> str:
    """Dotted names and indices; pydantic's names for the kinds of a union are left out."""
    return ".".join(
        str(part) for part in location if str(part).isidentifier() or part in range(999)
    )
