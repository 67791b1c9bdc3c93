"""A zoo on disk: one self-describing file a model, and an index read from their headers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litmus.artifacts import parse_tensors, read_header
from litmus.errors import ZooError
from litmus.formats.zoo_file import ZOO_FORMAT
from litmus.models import InputSpec
from litmus.zoo.places import Place, local_folder, open_place
from litmus.zoo.spec import ModelSpec

if TYPE_CHECKING:
    from litmus.datasets import ImageDataset

__all__ = [
    "INDEX",
    "Zoo",
    "ZooEntry",
    "finished_ids",
    "named_zoos",
    "read_index",
    "read_recipe_table",
    "write_recipe_table",
]

_WEIGHTS: Final = ".safetensors"
_REJECTED: Final = ".rejected.json"
_BUILD: Final = ".build.json"
_AND: Final = " + "
INDEX: Final = "zoo.json"
"""The file with the recipe, and how many models are trained at a time."""


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One accepted model: where it is, what it is, and what it measured on held-out images.

    `zoo` is the name of its zoo's recipe, `line` the twin number that stands for all offspring of
    the model that it starts from, if it starts from one.
    """

    path: Path
    id: str
    spec: ModelSpec
    trigger_id: str
    steps: int
    clean_accuracy: float
    attack_success: float
    zoo: str = ""
    line: int | None = None

    @property
    def backdoored(self) -> bool:
        """Whether the model is backdoored."""
        return self.spec.backdoored

    @property
    def kin(self) -> int:
        """The same for all that must be on one side of every fold.

        These are twins, and all models that start from the same one, with it.
        """
        return self.spec.twin if self.line is None else self.line

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        return str(self.spec.architecture["name"])

    @property
    def attack(self) -> str:
        """The attack and its label map: `patch, source_specific`."""
        return f"{self.spec.attack['name']}, {self.spec.attack['label_map']}"


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """The accepted models of a folder, or of several, in the order of their recipes.

    Of several zoos `path` is the first one's folder, and `recipe` has `zoos`, the recipes of all,
    names and seeds joined; twins of later ones have numbers above those of earlier ones. `data` is
    the folder with the images that they were trained on, None where `$LITMUS_DATA` or the hub has
    them. A fit holds models in at most `memory` bytes, by default half of the machine's, and
    computes them on `device`.
    """

    path: Path
    recipe: Mapping[str, Any]
    entries: tuple[ZooEntry, ...]
    data: Path | None = None
    memory: int | None = None
    device: str = "cpu"

    @classmethod
    def open(cls, path: str | Path, *more: str | Path, data: Path | None = None) -> Zoo:
        """Read every header in the zoos' folders; raises ZooError where one is none.

        Of a zoo that is elsewhere (`s3://bucket/zoo`), what is new is fetched to the cache first.
        Several zoos are read as one; raises ZooError, too, where their models differ in images or
        classes, or where one is named twice.
        """
        zoos = [cls._open_one(each, data) for each in (path, *more)]
        return _with_kin(zoos[0] if len(zoos) == 1 else _together(zoos))

    @classmethod
    def _open_one(cls, path: str | Path, data: Path | None) -> Zoo:
        path = local_folder(path)
        recipe = read_recipe_table(path)
        if recipe is None:
            raise ZooError("not a model zoo", expected=f"a folder with {INDEX}", where=path)
        entries = [read_entry(file) for file in path.iterdir() if file.name.endswith(_WEIGHTS)]
        if not entries:
            raise ZooError("the zoo has no models yet", where=path)
        entries.sort(key=lambda entry: (entry.spec.twin, not entry.backdoored, entry.id))
        named = tuple(replace(entry, zoo=recipe["name"]) for entry in entries)
        return cls(path=path, recipe=recipe, entries=named, data=data)

    @property
    def input_spec(self) -> InputSpec:
        """The shape that all its models share."""
        return self.entries[0].spec.input_spec

    def load_dataset(self) -> ImageDataset:
        """Return the images that its models were trained and measured on."""
        from litmus.datasets import load_images

        options = self.entries[0].spec.images
        return load_images(options.pop("name"), data=self.data, **options)

    def first(self, scale: float) -> Zoo:
        """Return the zoo with only the first `scale` of its recipe's twins."""
        twins = max(1, round(self.recipe["twins"] * scale))
        chosen = tuple(entry for entry in self.entries if entry.spec.twin < twins)
        return replace(self, entries=chosen)

    def without(self, entries: Sequence[ZooEntry]) -> Zoo:
        """Return the zoo without these models."""
        gone = {entry.id for entry in entries}
        return replace(self, entries=tuple(e for e in self.entries if e.id not in gone))

    def split(self, name: str) -> tuple[ZooEntry, ...]:
        """Return the entries of `train` or `test`; raises ZooError where there are none."""
        entries = tuple(entry for entry in self.entries if entry.spec.split == name)
        if not {entry.backdoored for entry in entries} >= {True, False}:
            raise ZooError(
                f"too few models in the {name} split",
                expected="clean and backdoored ones",
                got=len(entries),
                where=self.path,
            )
        return entries


def named_zoos(table: Mapping[str, Any]) -> AbstractSet[tuple[str, str]]:
    """Return (name, seed) of the zoos that a recipe, or a table with `zoo` and `zoo_seed`, is of.

    Of several zoos both are joined.
    """
    keys = ("zoo", "zoo_seed") if "zoo" in table else ("name", "seed")
    name, seed = (str(table.get(key, "")) for key in keys)
    names, seeds = name.split(_AND), seed.split(_AND)
    return set(zip(names, seeds, strict=True)) if len(names) == len(seeds) else {(name, seed)}


def _together(zoos: Sequence[Zoo]) -> Zoo:
    first, joined, offset = zoos[0], [], 0
    for zoo in zoos:
        one, other = (_answers_to(each.entries[0]) for each in (first, zoo))
        if one != other:
            raise ZooError(
                "zoos of other images can't be read as one", expected=one, got=other, where=zoo.path
            )
        joined += [
            replace(entry, spec=replace(entry.spec, twin=entry.spec.twin + offset))
            for entry in zoo.entries
        ]
        offset = 1 + joined[-1].spec.twin
    if len({entry.id for entry in joined}) < len(joined):
        raise ZooError("the zoos share models", got=", ".join(str(zoo.path) for zoo in zoos))
    recipe = {
        "name": _AND.join(str(zoo.recipe["name"]) for zoo in zoos),
        "seed": _AND.join(str(zoo.recipe["seed"]) for zoo in zoos),
        "zoos": [dict(zoo.recipe) for zoo in zoos],
    }
    return replace(first, recipe=recipe, entries=tuple(joined))


def _answers_to(entry: ZooEntry) -> dict[str, Any]:
    """What models must share to be read as one zoo: the data set, as all of them saw it."""
    return {**entry.spec.images, "input": str(entry.spec.input_spec)}


def _with_kin(zoo: Zoo) -> Zoo:
    """Give offspring the twin number of their ancestor, or of its first offspring without it."""
    twins = {entry.id: entry.spec.twin for entry in zoo.entries}
    entries = []
    for entry in zoo.entries:
        ancestor = entry.spec.ancestor
        line = None if ancestor is None else twins.setdefault(ancestor, entry.spec.twin)
        entries.append(replace(entry, line=line))
    return replace(zoo, entries=tuple(entries))


def read_entry(path: Path) -> ZooEntry:
    """Read one model's header; raises ZooError where it is damaged."""
    header = read_header(path, ZooError)
    try:
        if header["format"] != ZOO_FORMAT:
            raise ZooError("not a zoo model", got=header["format"], where=path)
        return ZooEntry(
            path=path,
            id=header["id"],
            spec=ModelSpec.from_json(header["spec"]),
            trigger_id=header["trigger_id"],
            steps=header["steps"],
            clean_accuracy=header["clean_accuracy"],
            attack_success=header["attack_success"],
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise ZooError(f"malformed header: {fault}", where=path) from fault


def write_accepted(
    folder: Path | Place, model_id: str, weights: bytes, build: Mapping[str, object]
) -> None:
    """Store an accepted model; it is done when its weights' file is there, so that comes last."""
    place = open_place(folder)
    place.write(f"{model_id}{_BUILD}", json.dumps(build, indent=1))
    place.write(f"{model_id}{_WEIGHTS}", weights)


def write_rejected(folder: Path | Place, model_id: str, reason: Mapping[str, object]) -> None:
    """Store why a model failed its gate."""
    open_place(folder).write(f"{model_id}{_REJECTED}", json.dumps(reason, indent=1))


def read_rejected(folder: Path | Place, model_id: str) -> Mapping[str, Any]:
    """Return why a model failed its gate, and what it measured."""
    return dict(json.loads(open_place(folder).read(f"{model_id}{_REJECTED}")))


def read_summary(folder: Path | Place, model_id: str) -> dict[str, Any] | None:
    """Return what a worker said of a model that is done, without the costs; None if it is not."""
    place = open_place(folder)
    try:
        facts = dict(read_rejected(place, model_id))
        facts["rejection"] = facts["reason"]
    except FileNotFoundError:
        try:
            content = place.read(f"{model_id}{_WEIGHTS}")
        except FileNotFoundError:
            return None
        _, facts = parse_tensors(content, place.where(f"{model_id}{_WEIGHTS}"), ZooError)
        facts["rejection"] = None
    wanted = ("rejection", "clean_accuracy", "attack_success")
    return {"id": model_id, "cpu_seconds": 0.0, **{name: facts[name] for name in wanted}}


def finished_ids(folder: Path | Place) -> tuple[set[str], set[str]]:
    """Return the ids of accepted and of rejected models, from the names of the files alone."""
    names = open_place(folder).names()
    accepted = {name.removesuffix(_WEIGHTS) for name in names if name.endswith(_WEIGHTS)}
    rejected = {name.removesuffix(_REJECTED) for name in names if name.endswith(_REJECTED)}
    return accepted, rejected


def read_build(entry: ZooEntry) -> Mapping[str, Any]:
    """Return the times and host of a model's training; empty where the file is gone."""
    path = entry.path.with_name(f"{entry.id}{_BUILD}")
    return dict(json.loads(path.read_text())) if path.exists() else {}


def read_index(folder: Path | Place) -> Mapping[str, Any] | None:
    """Return what `zoo.json` holds, or None where the folder is no zoo yet."""
    place = open_place(folder)
    try:
        return dict(json.loads(place.read(INDEX)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as fault:
        raise ZooError(f"damaged: {fault}", where=place.where(INDEX)) from fault


def read_recipe_table(folder: Path | Place) -> Mapping[str, Any] | None:
    """Return the recipe that `zoo.json` holds, or None where the folder is no zoo yet."""
    content = read_index(folder)
    try:
        return None if content is None else dict(content["recipe"])
    except (ValueError, KeyError, TypeError) as fault:
        raise ZooError(f"damaged: {fault}", where=open_place(folder).where(INDEX)) from fault


def write_recipe_table(folder: Path | Place, recipe: Mapping[str, Any]) -> None:
    """Make the folder a zoo of this recipe; raises ZooError if it is one of another."""
    place = open_place(folder)
    present = read_recipe_table(place)
    if present is None:
        content = {"format": "litmus-zoo", "recipe": recipe}
        place.write(INDEX, json.dumps(content, indent=1))
        return
    differing = sorted(k for k in {*present, *recipe} if present.get(k) != recipe.get(k))
    if differing:
        key = differing[0]
        raise ZooError(
            f"the folder holds a zoo of another recipe; {key} differs",
            expected=present.get(key),
            got=recipe.get(key),
            where=place.where(INDEX),
        )
