"""What every engine is: something that has models made, here or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from litmus.datasets import ImageDataset
from litmus.stacked_training import StackSettings
from litmus.zoo.groups import Seat, Waiting
from litmus.zoo.places import Place
from litmus.zoo.plan import Nodes
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import StackPlan

__all__ = ["Engine", "Job", "Workers"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is made: models on these images, for that place.

    `options` and `data` are what `dataset` was loaded with, for workers that load it themselves;
    `plan` says how many models are trained at a time, `count` how many wait. `ancestors` are the
    ids of the models that these start from; the place keeps them.
    """

    dataset: ImageDataset
    options: Mapping[str, int]
    data: str | None
    place: Place
    plan: StackPlan
    count: int
    ancestors: tuple[str, ...] = ()


class Workers(Protocol):
    """The workers of one job."""

    def replies(self, waiting: Waiting) -> Iterator[tuple[Seat, dict[str, Any]]]:
        """Yield what workers say of each model, as they finish; `waiting` may grow meanwhile.

        Whatever a reply tells of is in the job's place by then. Raises ZooError where a worker
        reports a mistake, or dies of the same model again and again.
        """


class Engine(Protocol):
    """A way to have models made; the same spec gives the same bytes by each of them.

    That holds for one torch version, kind of processor and plan of stacks: workers run one thread.
    """

    def machines(self) -> tuple[Nodes, ...]:
        """Return the machines that models would be made on; how fast they are is not told."""

    def step_seconds(
        self, spec: ModelSpec, dataset: ImageDataset, settings: StackSettings
    ) -> Mapping[int, float]:
        """Measure, where models are made, the seconds of a model's step by the size of its stack.

        Raises UsageError where there is no such device.
        """

    def workers(self, job: Job, limit: int | None) -> AbstractContextManager[Workers]:
        """Start at most `limit` workers, each with one model or stack; None is as many as fit.

        Leaving the context stops the models in flight. Raises UsageError where the plan's device
        is missing.
        """
