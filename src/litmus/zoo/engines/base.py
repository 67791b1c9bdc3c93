"""What every engine is: something that has models made, here or elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from litmus.datasets import ImageDataset
from litmus.zoo.places import Place
from litmus.zoo.spec import ModelSpec

__all__ = ["Engine", "Job", "Workers"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is made: models on these images, for that place.

    `options` and `data` are what `dataset` was loaded with, for workers that load it themselves;
    `count` is the number of models that wait.
    """

    dataset: ImageDataset
    options: Mapping[str, int]
    data: str | None
    place: Place
    count: int


class Workers(Protocol):
    """The workers of one job."""

    def replies(self, waiting: deque[ModelSpec]) -> Iterator[tuple[ModelSpec, dict[str, Any]]]:
        """Yield what workers say of each spec, as they finish; `waiting` may grow meanwhile.

        Whatever a reply tells of is in the job's place by then. Raises ZooError where a worker
        reports a mistake, or dies of the same spec again and again.
        """


class Engine(Protocol):
    """A way to have models made; the same spec gives the same bytes by each of them.

    That holds for one torch version and kind of processor: workers run one thread a model.
    """

    def workers(self, job: Job, limit: int | None) -> AbstractContextManager[Workers]:
        """Start workers for at most `limit` models at a time; None is as many as there are.

        Leaving the context stops the models in flight.
        """
