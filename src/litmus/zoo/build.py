"""Building a zoo: which models are missing, and worker processes that train them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from litmus.artifacts import canonical_json, remove_temporary_files
from litmus.datasets import ImageDataset, load_images
from litmus.errors import RecipeError, UsageError, ZooError
from litmus.seeds import torch_generator
from litmus.zoo.recipe import Recipe, load_recipe
from litmus.zoo.spec import ModelSpec, expand
from litmus.zoo.store import Zoo, finished_ids, write_recipe_table

__all__ = ["BuildEvent", "build", "build_zoo"]

_MAX_CRASHES: Final = 3
"""A model whose worker dies (killed for memory, say) is tried again; not for ever."""


@dataclass(frozen=True, kw_only=True)
class BuildEvent:
    """What just happened: a model accepted or rejected, or a twin given up.

    `done` counts accepted models and those given up, `total` all that were asked for. The first
    event, `found`, tells how many were there already.
    """

    kind: Literal["found", "accepted", "rejected", "given_up"]
    done: int
    total: int
    model_id: str = ""
    detail: str = ""
    cpu_seconds: float = 0.0


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int = 1,
    scale: float = 1.0,
    data: str | Path | None = None,
) -> Generator[BuildEvent, None, None]:
    """Train the recipe's models that `out` lacks, yielding an event for each.

    `workers` processes run one thread each. Closing the generator (or Ctrl-C) kills the models in
    flight and loses nothing else; another call goes on and ends with the same bytes. Raises
    UsageError, DataError, RecipeError or ZooError before any model is trained.
    """
    if workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    if not 0 < scale <= 1:
        raise UsageError("--scale is impossible", expected="above 0, at most 1", got=scale)
    folder = Path(out)
    dataset = load_images(recipe.dataset.name, data=data, **recipe.dataset.options())
    specs = expand(recipe, dataset.input_spec, scale=scale)
    _check_possible(recipe, specs, dataset)
    write_recipe_table(folder, recipe.to_json())
    remove_temporary_files(folder)
    waiting, done, given_up = _missing(specs, folder, recipe.attempts)
    yield BuildEvent(kind="found", done=done, total=len(specs), detail=f"{given_up} given up")
    if not waiting:
        return
    setup = {
        "dataset": recipe.dataset.name,
        "options": recipe.dataset.options(),
        "data": None if data is None else str(data),
        "folder": str(folder.resolve()),
    }
    with _Crew(min(workers, len(waiting)), setup) as crew:
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
    workers: int = 1,
    scale: float = 1.0,
    data: str | Path | None = None,
) -> Zoo:
    """Build a zoo from a recipe (or its file) and return it; see `build` for the arguments."""
    parsed = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    for _ in build(parsed, out, workers=workers, scale=scale, data=data):
        pass
    return Zoo.open(out)


def _missing(
    specs: list[ModelSpec], folder: Path, attempts: int
) -> tuple[deque[ModelSpec], int, int]:
    """Return the specs to train, how many are done, and how many of those were given up."""
    accepted, rejected = finished_ids(folder)
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
    crew: _Crew, waiting: deque[ModelSpec], done: int, total: int, attempts: int
) -> Iterator[BuildEvent]:
    crashes: dict[str, int] = {}
    while waiting or crew.busy:
        while waiting and crew.idle:
            crew.give(waiting.popleft())
        spec, reply = crew.next_reply()
        if reply is None:
            crashes[spec.id] = crashes.get(spec.id, 0) + 1
            if crashes[spec.id] == _MAX_CRASHES:
                raise ZooError(f"the worker died {_MAX_CRASHES} times", where=f"model {spec.id}")
            waiting.appendleft(spec)
            continue
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
        )


class _Crew:
    """Worker processes, each with at most one spec in hand."""

    def __init__(self, size: int, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._selector = selectors.DefaultSelector()
        self.idle: list[subprocess.Popen[str]] = []
        self.busy: dict[subprocess.Popen[str], ModelSpec] = {}
        self._size = size

    def __enter__(self) -> _Crew:
        self.idle = [self._start() for _ in range(self._size)]
        return self

    def __exit__(self, *exception: object) -> None:
        workers = [*self.idle, *self.busy]
        for worker in workers:
            worker.kill()  # all of them before waiting for any
        for worker in workers:
            self._end(worker)
        self._selector.close()

    def give(self, spec: ModelSpec) -> None:
        """Hand a spec to an idle worker."""
        worker = self.idle.pop()
        self.busy[worker] = spec
        self._write(worker, spec.to_json())

    def next_reply(self) -> tuple[ModelSpec, dict[str, Any] | None]:
        """Wait for a worker; its reply is None when it died, and another takes its place."""
        while True:
            key, _ = self._selector.select()[0]
            worker: subprocess.Popen[str] = key.data
            assert worker.stdout is not None
            line = worker.stdout.readline()
            spec = self.busy.pop(worker, None)
            if spec is not None and line.endswith("\n"):
                break
            if spec is None:
                self.idle.remove(worker)
            self._end(worker)
            self.idle.append(self._start())
            if spec is not None:
                return spec, None
        self.idle.append(worker)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ZooError(reply["error"], where=f"model {spec.id}")
        return spec, reply

    def _start(self) -> subprocess.Popen[str]:
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        worker = subprocess.Popen(
            [sys.executable, "-m", "litmus.zoo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **single},
            text=True,
            # Ctrl-C goes to the builder alone.
            start_new_session=True,
        )
        assert worker.stdout is not None
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        self._write(worker, self._setup)
        return worker

    def _end(self, worker: subprocess.Popen[str]) -> None:
        worker.kill()
        worker.wait()
        assert worker.stdin is not None
        assert worker.stdout is not None
        self._selector.unregister(worker.stdout)
        worker.stdout.close()
        with contextlib.suppress(OSError):  # what it did not read can't be flushed
            worker.stdin.close()

    @staticmethod
    def _write(worker: subprocess.Popen[str], message: dict[str, Any]) -> None:
        assert worker.stdin is not None
        try:
            worker.stdin.write(json.dumps(message) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            pass  # the worker is dead; `next_reply` notices
