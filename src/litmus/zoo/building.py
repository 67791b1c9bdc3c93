"""Building a zoo: which models are missing, and workers that train them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litmus.artifacts import canonical_json
from litmus.datasets import ImageDataset, load_images
from litmus.errors import RecipeError, UsageError
from litmus.seeds import torch_generator
from litmus.zoo.engines import Engine, Job, LocalEngine, Workers
from litmus.zoo.expansion import expand
from litmus.zoo.places import Place, open_place
from litmus.zoo.recipe import Recipe, load_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import Zoo, finished_ids, write_recipe_table

__all__ = ["BuildEvent", "build", "build_zoo"]


@dataclass(frozen=True, kw_only=True)
class BuildEvent:
    """What just happened: a model accepted or rejected, or a twin given up.

    `done` counts accepted models and those given up, `total` all that were asked for. The first
    event, `found`, tells how many were there already. `node` is the one of a cluster that made it.
    """

    kind: Literal["found", "accepted", "rejected", "given_up"]
    done: int
    total: int
    model_id: str = ""
    detail: str = ""
    cpu_seconds: float = 0.0
    node: str = ""


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int | None = 1,
    engine: Engine | None = None,
    scale: float = 1.0,
    data: str | Path | None = None,
) -> Generator[BuildEvent, None, None]:
    """Train the recipe's models that `out` lacks, yielding an event for each.

    `out` is a folder, or a URL that fsspec knows (`s3://bucket/zoo`). `workers` models are in the
    making at a time, on one thread each (None: as many as the engine has room for); the engine is
    `LocalEngine()` unless told otherwise. Closing the generator (or Ctrl-C) kills the models in
    flight and loses nothing else; another call goes on and ends with the same bytes, on any
    engine. Raises UsageError, DataError, RecipeError or ZooError before any model is trained.
    """
    if workers is not None and workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    if not 0 < scale <= 1:
        raise UsageError("--scale is impossible", expected="above 0, at most 1", got=scale)
    place = open_place(out)
    dataset = load_images(recipe.dataset.name, data=data, **recipe.dataset.options())
    specs = expand(recipe, dataset.input_spec, scale=scale)
    _check_possible(recipe, specs, dataset)
    write_recipe_table(place, recipe.to_json())
    place.remove_temporary_files()
    waiting, done, given_up = _missing(specs, place, recipe.attempts)
    yield BuildEvent(kind="found", done=done, total=len(specs), detail=f"{given_up} given up")
    if not waiting:
        return
    job = Job(
        dataset=dataset,
        options=recipe.dataset.options(),
        data=None if data is None else str(data),
        place=place,
        count=len(waiting),
    )
    with (engine or LocalEngine()).workers(job, workers) as crew:
        yield from _run(crew, waiting, done, len(specs), recipe.attempts)


def _check_possible(recipe: Recipe, specs: list[ModelSpec], dataset: ImageDataset) -> None:
    """Raise RecipeError, before anything is written, for what no worker could do."""
    if recipe.dataset.train_images > len(dataset.train):
        raise RecipeError(
            "too few training images",
            expected=f"at most {len(dataset.train)}",
            got=recipe.dataset.train_images,
            where=f"recipe {recipe.name}: dataset.train_images",
        )
    architectures = {canonical_json(spec.architecture): spec for spec in specs}
    for spec in architectures.values():
        spec.build_architecture().skeleton(spec.input_spec)
    without_classes = {
        canonical_json({k: v for k, v in spec.attack.items() if not k.endswith("_class")}): spec
        for spec in specs
    }
    for spec in without_classes.values():
        spec.build_attack().stamp(dataset.test.images[:1], torch_generator(0))


def build_zoo(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    workers: int | None = 1,
    engine: Engine | None = None,
    scale: float = 1.0,
    data: str | Path | None = None,
) -> Zoo:
    """Build a zoo from a recipe (or its file) and return it; see `build` for the arguments."""
    parsed = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    for _ in build(parsed, out, workers=workers, engine=engine, scale=scale, data=data):
        pass
    return Zoo.open(out)


def _missing(
    specs: list[ModelSpec], place: Place, attempts: int
) -> tuple[deque[ModelSpec], int, int]:
    """Return the specs to train, how many are done, and how many of those were given up."""
    accepted, rejected = finished_ids(place)
    waiting: deque[ModelSpec] = deque()
    given_up = 0
    for first in specs:
        spec: ModelSpec | None = first
        while spec is not None and (model_id := spec.id) not in accepted:
            if model_id not in rejected:
                waiting.append(spec)
                break
            spec = spec.substitute(attempts)
        given_up += spec is None
    return waiting, len(specs) - len(waiting), given_up


def _run(
    crew: Workers, waiting: deque[ModelSpec], done: int, total: int, attempts: int
) -> Iterator[BuildEvent]:
    for spec, reply in crew.replies(waiting):
        rejection = reply["rejection"]
        detail = rejection or (
            f"clean accuracy {reply['clean_accuracy']:.4f}, "
            f"attack success {reply['attack_success']:.4f}"
        )
        substitute = spec.substitute(attempts) if rejection else None
        if substitute:
            waiting.appendleft(substitute)
        else:
            done += 1
        yield BuildEvent(
            kind="accepted" if not rejection else "rejected" if substitute else "given_up",
            done=done,
            total=total,
            model_id=spec.id,
            detail=detail,
            cpu_seconds=reply["cpu_seconds"],
            node=reply.get("node", ""),
        )
