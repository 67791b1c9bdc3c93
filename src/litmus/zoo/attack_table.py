"""How a recipe describes an attack, and how each model's own trigger gets into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks import ATTACKS
from litmus.errors import RecipeError
from litmus.schema import STRICT, from_table

__all__ = ["AttackTable", "attack_table", "uses_trigger_set", "with_trigger"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttackTable:
    """How backdoored models are attacked; triggers and classes are filled in for each model.

    `pairs`: `cycle` goes through all source/target pairs again and again within each split;
    `unique` uses each once, so that test pairs are unseen in training too; `random` draws them.
    Where `options` describe the `trigger`, or the attack has no such thing, each model gets a new
    one; otherwise it is one of the recipe's set. `more_triggers` gives models so many besides.
    """

    name: str = "patch"
    options: dict[str, Any] = field(default_factory=dict)
    label_map: Literal["source_specific", "all_to_one", "all_to_all", "untargeted"] = (
        "source_specific"
    )
    pairs: Literal["cycle", "unique", "random"] = "cycle"
    poison_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    more_triggers: Annotated[int, Field(ge=1)] | None = None


def uses_trigger_set(table: AttackTable) -> bool:
    """Whether models get one of the recipe's triggers, rather than each a new one."""
    return "trigger" in ATTACKS[table.name].__dataclass_fields__ and "trigger" not in table.options


def attack_table(entry: Mapping[str, Any], where: str) -> AttackTable:
    """Return a checked table; keys that are not its own belong to the attack that `name` picks.

    Raises RecipeError naming `where` and the key that is wrong.
    """
    own_names = set(AttackTable.__dataclass_fields__) - {"options"}
    own = {k: v for k, v in entry.items() if k in own_names}
    options = {k: v for k, v in entry.items() if k not in own}
    name = own.get("name")
    if name not in ATTACKS:
        raise RecipeError(
            "unknown attack",
            expected=f"one of {', '.join(ATTACKS)}",
            got=repr(name),
            where=f"{where}.name",
        )
    filled_in = {"num_classes", "source_class", "target_class", "index", "seed", "others"}
    known = set(ATTACKS[name].__dataclass_fields__) - filled_in
    if unknown := sorted(set(options) - known):
        raise RecipeError(
            "unknown key",
            expected=", ".join(sorted(known | own_names)),
            got=unknown[0],
            where=f"{where}.{unknown[0]}",
        )
    checked = from_table(AttackTable, {**own, "options": options}, where)
    _check_options(checked, where)
    return checked


def _check_options(table: AttackTable, where: str) -> None:
    """Make the attack once, with stand-ins for what each model fills in."""
    classes = {
        "source_specific": {"source_class": 0, "target_class": 1},
        "all_to_one": {"target_class": 0},
    }
    from_table(
        ATTACKS[table.name],
        {
            "num_classes": 2,
            "label_map": table.label_map,
            "poison_ratio": table.poison_ratio,
            **classes.get(table.label_map, {}),
            **with_trigger(table, {"index": 0}, where),
        },
        where,
    )


def with_trigger(table: AttackTable, identity: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return an attack's options with its trigger, which `identity` (index, ...) tells apart.

    An attack without a trigger's description has the identity itself among its options. Raises
    RecipeError where the table asks for more triggers than the attack can have.
    """
    fields = ATTACKS[table.name].__dataclass_fields__
    if table.more_triggers and "others" not in fields:
        raise RecipeError(
            f"{table.name} has one trigger", got=table.more_triggers, where=f"{where}.more_triggers"
        )
    if "trigger" not in fields:
        return {**table.options, **identity}
    described = table.options.get("trigger", {})
    if not isinstance(described, dict) or {"index", "seed"} & set(described):
        raise RecipeError(
            "wrong value",
            expected="a table of the trigger's kind, size, ...; its index is filled in",
            got=repr(described),
            where=f"{where}.trigger",
        )
    trigger = {**described, **identity}
    options = {**table.options, "trigger": trigger}
    if table.more_triggers:
        first = trigger.get("seed", 0) + 1  # other sets have other triggers of the same index
        options["others"] = [
            {**trigger, "seed": first + number} for number in range(table.more_triggers)
        ]
    return options
