"""Building a zoo: which models are missing, and workers that train them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from litmus.artifacts import canonical_json
from litmus.datasets import ImageDataset, load_images
from litmus.errors import RecipeError, UsageError
from litmus.seeds import torch_generator
from litmus.stacked_training import Precision
from litmus.zoo.ancestors import ancestors_of, check_ancestors, keep_ancestors
from litmus.zoo.engines import Engine, Job, LocalEngine, Workers
from litmus.zoo.expansion import expand
from litmus.zoo.groups import Waiting, seats
from litmus.zoo.places import open_place
from litmus.zoo.recipe import Recipe, load_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import ONE_AT_A_TIME, StackRequest, read_plan, write_plan
from litmus.zoo.stacks import commonest, fastest_plan
from litmus.zoo.store import INDEX, Zoo, finished_ids, write_recipe_table

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
    stack: int | Literal["auto"] | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> Generator[BuildEvent, None, None]:
    """Train the recipe's models that `out` lacks, yielding an event for each.

    `out` is a folder, or a URL that fsspec knows (`s3://bucket/zoo`). `workers` models are in the
    making at a time, on one thread each (None: as many as the engine has room for); the engine is
    `LocalEngine()` unless told otherwise. Closing the generator (or Ctrl-C) kills the models in
    flight and loses nothing else; another call goes on and ends with the same bytes, on any
    engine.

    `stack` models of one kind are trained as one network, on `device` (`cpu`, `cuda`, `cuda:N`) in
    `precision` (of a GPU); `auto` measures which size is fastest. A zoo keeps what it was begun
    with, and None is that; a new one is trained one model at a time on the CPU, and with `auto` on
    a GPU. A model's id does not depend on it, its bytes do.

    Of models that start from others, these are kept in `out`, too, as `ID.ancestor`.

    Raises UsageError, DataError, RecipeError or ZooError before any model is trained.
    """
    if workers is not None and workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    if not 0 < scale <= 1:
        raise UsageError("--scale is impossible", expected="above 0, at most 1", got=scale)
    request = StackRequest(size=stack, device=device, precision=precision)
    place = open_place(out)
    dataset = load_images(recipe.dataset.name, data=data, **recipe.dataset.options())
    ancestors = ancestors_of(recipe, dataset.input_spec)
    specs = expand(recipe, dataset.input_spec, scale=scale, ancestors=ancestors)
    _check_possible(recipe, specs, dataset)
    check_ancestors(ancestors, place)
    accepted, rejected = finished_ids(place)
    begun = read_plan(place) or (ONE_AT_A_TIME if accepted or rejected else None)
    plan = request.plan(begun, place.where(INDEX))
    write_recipe_table(place, recipe.to_json())
    place.remove_temporary_files()
    missing, given_up = _missing(specs, accepted, rejected, recipe.attempts)
    done = len(specs) - len(missing)
    yield BuildEvent(kind="found", done=done, total=len(specs), detail=f"{given_up} given up")
    if not missing:
        return
    keep_ancestors(ancestors, place)
    engine = engine or LocalEngine()
    if plan is None:
        settings = request.settings(begun)
        seconds = engine.step_seconds(commonest(specs), dataset, settings)
        plan = fastest_plan(specs, settings, seconds)
    places = enumerate(seats(specs, plan.size))
    waiting = Waiting(replace(seat, spec=missing[n]) for n, seat in places if n in missing)
    job = Job(
        dataset=dataset,
        options=recipe.dataset.options(),
        data=None if data is None else str(data),
        place=place,
        plan=plan,
        count=waiting.stacks(plan.size),
        ancestors=tuple(each.id for each in ancestors),
    )
    with engine.workers(job, workers) as crew:
        if begun is None and request != StackRequest():
            write_plan(place, plan)
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
    if recipe.dataset.test_images > len(dataset.test):
        raise RecipeError(
            "too few test images",
            expected=f"at most {len(dataset.test)}",
            got=recipe.dataset.test_images,
            where=f"recipe {recipe.name}: dataset.test_images",
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
    stack: int | Literal["auto"] | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> Zoo:
    """Build a zoo from a recipe (or its file) and return it; see `build` for the arguments."""
    parsed = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    events = build(
        parsed,
        out,
        workers=workers,
        engine=engine,
        scale=scale,
        data=data,
        stack=stack,
        device=device,
        precision=precision,
    )
    for _ in events:
        pass
    return Zoo.open(out)


def _missing(
    specs: list[ModelSpec], accepted: set[str], rejected: set[str], attempts: int
) -> tuple[dict[int, ModelSpec], int]:
    """Return the specs to train by their numbers in the recipe, and how many were given up."""
    missing = {}
    given_up = 0
    for number, first in enumerate(specs):
        spec: ModelSpec | None = first
        while spec is not None and (model_id := spec.id) not in accepted:
            if model_id not in rejected:
                missing[number] = spec
                break
            spec = spec.substitute(attempts)
        given_up += spec is None
    return missing, given_up


def _run(
    crew: Workers, waiting: Waiting, done: int, total: int, attempts: int
) -> Iterator[BuildEvent]:
    for seat, reply in crew.replies(waiting):
        rejection = reply["rejection"]
        detail = rejection or (
            f"clean accuracy {reply['clean_accuracy']:.4f}, "
            f"attack success {reply['attack_success']:.4f}"
        )
        substitute = seat.spec.substitute(attempts) if rejection else None
        if substitute:
            waiting.put_first([replace(seat, spec=substitute)])
        else:
            done += 1
        yield BuildEvent(
            kind="accepted" if not rejection else "rejected" if substitute else "given_up",
            done=done,
            total=total,
            model_id=seat.spec.id,
            detail=detail,
            cpu_seconds=reply["cpu_seconds"],
            node=reply.get("node", ""),
        )
