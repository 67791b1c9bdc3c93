"""The trained models that a recipe's models start from, where it names some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from litmus.errors import RecipeError, ZooError
from litmus.zoo.places import Place
from litmus.zoo.store import Zoo, ZooEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litmus.models import InputSpec
    from litmus.zoo.recipe import Recipe
    from litmus.zoo.spec import ModelSpec

__all__ = ["Ancestor", "Fetch", "ancestors_of", "check_ancestors", "keep_ancestors", "kept_in"]

_SUFFIX: Final = ".ancestor"
Fetch = Callable[[str], bytes]
"""Returns the zoo file of an ancestor, by its id."""


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A clean model that others start from: id, architecture as headers have it, file."""

    id: str
    architecture: Mapping[str, Any]
    path: Path

    @classmethod
    def of(cls, entry: ZooEntry) -> Self:
        """Return a zoo's model as an ancestor."""
        return cls(id=entry.id, architecture=entry.spec.architecture, path=entry.path)


def ancestors_of(recipe: Recipe, input_spec: InputSpec) -> tuple[Ancestor, ...]:
    """Return the clean models of the zoo that a recipe starts from, none where it names no zoo.

    Raises ZooError where there is no zoo, RecipeError where its models are for other images or
    start from others themselves, or where a recipe that names no zoo was given one.
    """
    if recipe.start_from is None:
        if recipe.ancestors_in is not None:
            raise RecipeError(
                "the recipe's models start from nothing",
                expected='start_from = "DIR"',
                where=f"recipe {recipe.name}",
            )
        return ()
    assert recipe.ancestors_in is not None
    zoo = Zoo.open(recipe.ancestors_in)
    clean = tuple(entry for entry in zoo.entries if not entry.backdoored)
    where = f"recipe {recipe.name}: start_from"
    if not clean:
        raise RecipeError("a zoo without clean models to start from", got=zoo.path, where=where)
    fits = {"data": recipe.dataset.name, "input": str(input_spec), "start_from": "none"}
    for entry in clean:
        spec = entry.spec
        got = {
            "data": spec.dataset["name"],
            "input": str(spec.input_spec),
            "start_from": spec.ancestor or "none",
        }
        if got != fits:
            raise RecipeError("not a model to start from", expected=fits, got=got, where=entry.path)
    return tuple(map(Ancestor.of, clean))


def check_ancestors(ancestors: Sequence[Ancestor], place: Place) -> None:
    """Raise ZooError where a zoo was begun with other ancestors: its models would be others."""
    kept = {name for name in place.names() if name.endswith(_SUFFIX)}
    wanted = {_name(ancestor.id) for ancestor in ancestors}
    if kept and kept != wanted:
        raise ZooError(
            "the zoo was begun with other models to start from",
            expected=f"the same {len(kept)} clean models",
            got=f"{len(wanted)}, of which {len(wanted & kept)} are the same",
            where=str(place),
        )


def keep_ancestors(ancestors: Sequence[Ancestor], place: Place) -> None:
    """Copy ancestors' files beside the models that start from them: whoever makes one reads it."""
    there = set(place.names())
    for ancestor in ancestors:
        if _name(ancestor.id) not in there:
            place.write(_name(ancestor.id), ancestor.path.read_bytes())


def kept_in(place: Place) -> Fetch:
    """Return what reads the ancestors that a zoo keeps."""

    def fetch(model_id: str) -> bytes:
        try:
            return place.read(_name(model_id))
        except FileNotFoundError as fault:
            raise ZooError(
                "the model that this one starts from is gone", where=place.where(_name(model_id))
            ) from fault

    return fetch


def no_ancestor(model_id: str) -> bytes:
    """Raise ZooError: the place has no files of ancestors."""
    raise ZooError("the model that this one starts from is not at hand", got=model_id)


def _name(model_id: str) -> str:
    return f"{model_id}{_SUFFIX}"


def check_header(spec: ModelSpec, header: Mapping[str, Any]) -> None:
    """Raise ZooError where a file is not that of the spec's ancestor."""
    got = header.get("id"), header.get("spec", {}).get("architecture")
    if got != (spec.ancestor, dict(spec.architecture)):
        raise ZooError(
            "not the model to start from",
            expected=spec.ancestor,
            got=got[0],
            where=f"model {spec.id}",
        )
