"""The recipe of a zoo: a TOML file that says which models to train."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.architectures import ARCHITECTURES, Architecture
from litmus.attacks import ATTACKS
from litmus.errors import RecipeError
from litmus.schema import STRICT, from_table, named_from_table, to_table
from litmus.training import TrainingSpec

__all__ = ["AttackTable", "DatasetTable", "Gates", "Recipe", "TriggerTable", "load_recipe"]

_TABLES = ("dataset", "architecture", "training", "attack", "triggers", "gates")
_SCALARS = ("name", "seed", "twins", "test_share", "controls")

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DatasetTable:
    """Which images: a data set's name and its options.

    Each model trains on `train_images` of the training split, drawn anew for it (0: all of
    them). `image_size` and `channels` are for `folder` alone.
    """

    name: Literal["digits", "mnist", "cifar10", "gtsrb", "folder"]
    train_images: Annotated[int, Field(ge=0)] = 0
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    channels: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        if self.name != "folder" and (self.image_size or self.channels):
            raise ValueError("image_size and channels are for the data set 'folder'")

    def options(self) -> dict[str, int]:
        """Return what the data set's `load` takes."""
        given = {"image_size": self.image_size, "channels": self.channels}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TriggerTable:
    """The set of random triggers, and how many of them train and test models get.

    The pool is `binary` black and white triggers and `colour` coloured ones, of `size` pixels,
    from `seed`; which go where is drawn from the recipe's seed.
    """

    binary: Annotated[int, Field(ge=0)] = 10
    colour: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=1, le=64)] = 5
    seed: int = 0
    train: Annotated[int, Field(ge=1)] = 5
    test: Annotated[int, Field(ge=1)] = 5

    def __post_init__(self) -> None:
        if self.train + self.test > self.binary + self.colour:
            raise ValueError(
                f"train {self.train} + test {self.test} triggers are more than "
                f"binary {self.binary} + colour {self.colour}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttackTable:
    """How backdoored models are attacked; triggers and classes are filled in for each model.

    `pairs`: `cycle` goes through all source/target pairs again and again within each split;
    `unique` uses each once, so that test pairs are unseen in training too.
    """

    name: str = "patch"
    options: dict[str, Any] = field(default_factory=dict)
    label_map: Literal["source_specific", "all_to_one", "all_to_all", "untargeted"] = (
        "source_specific"
    )
    pairs: Literal["cycle", "unique"] = "cycle"
    poison_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Gates:
    """What a model must show on held-out images to be accepted.

    `clean_accuracy` must be reached, `attack_success` exceeded, unless it is 0: then models whose
    attack failed stay in the zoo too.
    """

    clean_accuracy: Share = 0.0
    attack_success: Annotated[float, Field(ge=0, lt=1)] = 0.9


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """`twins` backdoored models, each with a clean control trained in the same way.

    `test_share` of the twins get test triggers and are kept for evaluation. Where several
    architectures or attacks are given, twins take them in turn. `controls = false` leaves the
    clean controls out, for a zoo that is read beside another one's clean models.
    """

    name: str
    seed: int = 0
    twins: Annotated[int, Field(ge=2)]
    test_share: Share = 0.5
    controls: bool = True
    dataset: DatasetTable
    architectures: tuple[Architecture, ...]
    training: TrainingSpec
    attacks: tuple[AttackTable, ...]
    triggers: TriggerTable
    gates: Gates

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as resolved tables, every default written out."""
        table = to_table(self)
        table["architectures"] = [architecture_table(a) for a in self.architectures]
        return table


def architecture_table(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture's name and parameters, as recipes and headers have them."""
    name = next(n for n, cls in ARCHITECTURES.items() if cls is type(architecture))
    return {"name": name, **to_table(architecture)}


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; raises RecipeError with file, key, expected and got."""
    path = Path(path)
    try:
        return parse_recipe(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as fault:
        raise RecipeError(f"can't be read: {fault.strerror}", where=path) from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RecipeError(f"not TOML: {fault}", where=path) from fault


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe that a TOML document describes; `where` names it in errors."""
    unknown = sorted(set(table) - {*_TABLES, *_SCALARS})
    if unknown:
        known = ", ".join([*_SCALARS, *(f"[{name}]" for name in _TABLES)])
        raise RecipeError("unknown key", expected=known, got=unknown[0], where=where)
    architectures = tuple(
        named_from_table(ARCHITECTURES, entry, place, "architecture")
        for entry, place in _entries(table, "architecture", where)
    )
    attacks = tuple(
        _attack_table(entry, place) for entry, place in _entries(table, "attack", where)
    )
    parts: dict[str, Any] = {
        "dataset": from_table(DatasetTable, _table(table, "dataset", where), f"{where}: dataset"),
        "training": from_table(
            TrainingSpec, _table(table, "training", where), f"{where}: training"
        ),
        "triggers": from_table(
            TriggerTable, _table(table, "triggers", where), f"{where}: triggers"
        ),
        "gates": from_table(Gates, _table(table, "gates", where), f"{where}: gates"),
    }
    scalars = from_table(_Scalars, {k: table[k] for k in _SCALARS if k in table}, f"{where}:")
    return Recipe(**to_table(scalars), **parts, architectures=architectures, attacks=attacks)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Scalars:
    name: str
    seed: int = 0
    twins: Annotated[int, Field(ge=2)]
    test_share: Share = 0.5
    controls: bool = True


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise RecipeError("wrong type", expected=f"a table [{key}]", got=repr(value), where=where)
    return value


def _entries(table: Mapping[str, Any], key: str, where: str) -> list[tuple[Mapping[str, Any], str]]:
    value = table.get(key)
    entries: list[Any] = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RecipeError(
            "missing or of the wrong type",
            expected=f"a table [{key}] or several [[{key}]]",
            got=repr(value),
            where=f"{where}: {key}",
        )
    if len(entries) == 1:
        return [(entries[0], f"{where}: {key}")]
    return [(entry, f"{where}: {key}[{i}]") for i, entry in enumerate(entries)]


def _attack_table(entry: Mapping[str, Any], where: str) -> AttackTable:
    """Keys that are not the table's own belong to the attack that its `name` picks."""
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
    filled_in = {"num_classes", "source_class", "target_class", "trigger"}
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
    stand_ins = {"num_classes": 2, "trigger": {"index": 0}, **classes.get(table.label_map, {})}
    shared = {"label_map": table.label_map, "poison_ratio": table.poison_ratio}
    from_table(ATTACKS[table.name], {**table.options, **shared, **stand_ins}, where)
