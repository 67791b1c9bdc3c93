"""The recipe of a zoo: a TOML file that says which models to train."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.architectures import ARCHITECTURES, Architecture
from litmus.errors import RecipeError
from litmus.schema import STRICT, from_table, named_from_table, to_table
from litmus.training import TrainingSpec
from litmus.zoo.attack_table import AttackTable, attack_table
from litmus.zoo.sampling import Drawn

__all__ = ["DatasetTable", "Gates", "Recipe", "TriggerTable", "load_recipe"]

_TABLES = ("dataset", "architecture", "training", "attack", "triggers", "gates")
_SCALARS = ("name", "seed", "twins", "test_share", "controls", "attempts", "start_from")

DEFAULT_ATTEMPTS: Final = 3
"""A model that fails its gate is replaced by its next attempt, up to this many in all."""

Share = Annotated[float, Field(ge=0, le=1)]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DatasetTable:
    """Which images: a data set's name and its options.

    Each model trains on `train_images` of the training split, drawn anew for it (0: all of
    them), and is measured on the first `test_images` of the test split (0: all).
    `image_size` and `channels` are for `folder` alone.
    """

    name: Literal["digits", "mnist", "cifar10", "gtsrb", "folder"]
    train_images: Annotated[int, Field(ge=0)] = 0
    test_images: Annotated[int, Field(ge=0)] = 0
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    channels: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        if self.name != "folder" and (self.image_size or self.channels):
            raise ValueError("image_size and channels are for the data set 'folder'")
        if self.name == "folder" and self.test_images:
            raise ValueError("test_images is not for the data set 'folder', which lies by class")

    def options(self) -> dict[str, int]:
        """Return what the data set's `load` takes."""
        given = {"image_size": self.image_size, "channels": self.channels}
        return {name: value for name, value in given.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the table; `test_images` only if some, as in the zoos that are older than it."""
        table = asdict(self)
        if not self.test_images:
            del table["test_images"]
        return table

    def of_models(self) -> dict[str, Any]:
        """Return what models' specs say of their images."""
        some = {"test_images": self.test_images} if self.test_images else {}
        return {"name": self.name, "train_images": self.train_images} | some | self.options()


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
class Gates:
    """What a model must show on held-out images to be accepted.

    `clean_accuracy` must be reached, `attack_success` exceeded, unless it is 0: then models whose
    attack failed stay in the zoo too.
    """

    clean_accuracy: Share = 0.0
    attack_success: Annotated[float, Field(ge=0, lt=1)] = 0.9


@plain_dataclass(frozen=True, kw_only=True)
class Recipe:
    """`twins` backdoored models, each with a clean control trained in the same way.

    `test_share` of the twins get test triggers and are kept for evaluation. Where several
    architectures or attacks are given, twins take them in turn; which training a twin gets is
    drawn. `controls = false` leaves the clean controls out, for a zoo that is read beside another
    one's clean models. A model that fails its gate is trained anew, up to `attempts` times in all:
    1 where the values are sampled so widely that the same ones would mostly fail again.
    Architectures, trainings and attacks may sample their values.

    `start_from` names a zoo, whose clean models the twins start from in turn, in place of drawn
    weights: both twins are trained on from the same one, one of them on poisoned data. There are
    no `architectures` then, for these models have theirs. `ancestors_in` is the folder where that
    zoo is now, which is no part of the recipe.
    """

    name: str
    seed: int = 0
    twins: int
    test_share: float = 0.5
    controls: bool = True
    attempts: int = DEFAULT_ATTEMPTS
    start_from: str | None = None
    ancestors_in: Path | str | None = None
    dataset: DatasetTable
    architectures: tuple[Drawn[Architecture], ...]
    trainings: tuple[Drawn[TrainingSpec], ...]
    attacks: tuple[Drawn[AttackTable], ...]
    triggers: TriggerTable
    gates: Gates

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as resolved tables, every default written out; samplers as given."""
        trainings = [_resolved(drawn, to_table) for drawn in self.trainings]
        return {
            **{name: getattr(self, name) for name in _SCALARS},
            "dataset": self.dataset.to_json(),
            "architectures": [_resolved(drawn, architecture_table) for drawn in self.architectures],
            "training": trainings[0] if len(trainings) == 1 else trainings,
            "attacks": [_resolved(drawn, to_table) for drawn in self.attacks],
            "triggers": to_table(self.triggers),
            "gates": to_table(self.gates),
        }


def _resolved(drawn: Drawn[T], as_table: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    return dict(drawn.table) if drawn.samples else as_table(drawn.at())


def architecture_table(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture's name and parameters, as recipes and headers have them."""
    name = next(n for n, cls in ARCHITECTURES.items() if cls is type(architecture))
    return {"name": name, **to_table(architecture)}


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; raises RecipeError with file, key, expected and got.

    `base = "FILE"` in it names the recipe, relative to this one, whose tables it takes over; the
    tables and keys that it has itself replace them whole.
    """
    return parse_recipe(_read(Path(path), ()), str(path), beside=Path(path).parent)


def _read(path: Path, behind: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's tables over those of its `base`, a recipe that it differs from."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise RecipeError(f"can't be read: {fault.strerror}", where=path) from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RecipeError(f"not TOML: {fault}", where=path) from fault
    base = table.pop("base", None)
    if base is None:
        return table
    behind = (*behind, path.resolve())
    if not isinstance(base, str) or (path.parent / base).resolve() in behind:
        raise RecipeError(
            "wrong value", expected="another recipe's file", got=repr(base), where=f"{path}: base"
        )
    inherited = _read(path.parent / base, behind)
    if "start_from" in table:
        inherited.pop("architecture", None)  # those that it starts from have theirs
    return {**inherited, **table}


def parse_recipe(table: Mapping[str, Any], where: str, *, beside: Path = Path()) -> Recipe:
    """Return the recipe that a TOML document describes; `where` names it in errors.

    A folder that it names is seen from the folder `beside`.
    """
    unknown = sorted(set(table) - {*_TABLES, *_SCALARS})
    if unknown:
        known = ", ".join([*_SCALARS, *(f"[{name}]" for name in _TABLES)])
        raise RecipeError("unknown key", expected=known, got=unknown[0], where=where)
    scalars = from_table(_Scalars, {k: table[k] for k in _SCALARS if k in table}, f"{where}:")
    if scalars.start_from is not None and "architecture" in table:
        raise RecipeError(
            "models that start from others have their architectures",
            expected="start_from or [architecture]",
            got="both",
            where=where,
        )
    return Recipe(
        **to_table(scalars),
        ancestors_in=None if scalars.start_from is None else beside / scalars.start_from,
        dataset=from_table(DatasetTable, _table(table, "dataset", where), f"{where}: dataset"),
        architectures=()
        if scalars.start_from is not None
        else _drawn(table, "architecture", where, _architecture),
        trainings=_drawn({"training": {}, **table}, "training", where, _training),
        attacks=_drawn(table, "attack", where, attack_table),
        triggers=from_table(TriggerTable, _table(table, "triggers", where), f"{where}: triggers"),
        gates=from_table(Gates, _table(table, "gates", where), f"{where}: gates"),
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Scalars:
    name: str
    seed: int = 0
    twins: Annotated[int, Field(ge=2)]
    test_share: Share = 0.5
    controls: bool = True
    attempts: Annotated[int, Field(ge=1, le=9)] = DEFAULT_ATTEMPTS
    start_from: str | None = None


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


def _drawn(
    table: Mapping[str, Any],
    key: str,
    where: str,
    make: Callable[[Mapping[str, Any], str], T],
) -> tuple[Drawn[T], ...]:
    return tuple(
        Drawn(table=entry, make=make, where=place) for entry, place in _entries(table, key, where)
    )


def _architecture(entry: Mapping[str, Any], where: str) -> Architecture:
    return named_from_table(ARCHITECTURES, entry, where, "architecture")


def _training(entry: Mapping[str, Any], where: str) -> TrainingSpec:
    return from_table(TrainingSpec, entry, where)
