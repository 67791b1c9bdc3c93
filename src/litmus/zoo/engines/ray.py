"""A Ray cluster: tasks of about the same length, on whatever nodes there are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from litmus.errors import MissingExtraError, UsageError, ZooError
from litmus.zoo.costs import cost_counter
from litmus.zoo.engines.base import Job
from litmus.zoo.engines.ray_task import make_models, pack, versions
from litmus.zoo.spec import ModelSpec

__all__ = ["RayEngine"]

_MAX_LOSSES: Final = 5
"""A model whose worker was lost while it was alone in its task is tried again; not for ever."""

_IN_FLIGHT: Final = 2
"""Tasks for each slot: one runs, the next one waits, and an autoscaler sees that more would do."""

_TASKS_PER_SLOT: Final = 8
"""At least so many tasks of tiny models a slot, so that all slots end at about the same time."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """An existing cluster by `address` (or `$RAY_ADDRESS`), or else a local one for this build.

    A task takes one core and `gpus_per_task` of a GPU, which may be a fraction. Its nodes need
    the same versions of Litmus and torch as the builder, and nothing else: no shared disk, no
    images. Where the zoo is in a folder, its files come back to the builder, which writes them.
    """

    address: str | None = None
    gpus_per_task: float = 0.0

    @contextmanager
    def workers(self, job: Job, limit: int | None) -> Iterator[RayTasks]:
        """Connect to the cluster for one job, and put the images there once."""
        if self.gpus_per_task < 0:
            raise UsageError("impossible share of a GPU", got=self.gpus_per_task)
        try:
            import ray
        except ModuleNotFoundError as fault:
            raise MissingExtraError(
                "Ray is not installed", expected="pip install 'litmus-patterns[ray]'"
            ) from fault
        ours = not ray.is_initialized()
        if ours:
            _connect(self.address)
        tasks = None
        try:
            slots = _slots(ray.cluster_resources(), self.gpus_per_task)
            remote = ray.remote(
                num_cpus=1,
                num_gpus=self.gpus_per_task,
                max_retries=0,  # `RayTasks` tries again, one model at a time
                scheduling_strategy="SPREAD",
            )(make_models)
            tasks = RayTasks(
                job=job,
                remote=remote,
                images=ray.put(pack(job.dataset)),
                slots=min(slots, limit or slots),
                in_flight=limit or _IN_FLIGHT * slots,
            )
            yield tasks
        finally:
            if tasks is not None:
                tasks.cancel()
            if ours:
                ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    try:
        ray.init(
            address=address or os.environ.get("RAY_ADDRESS"),
            logging_level="warning",
            log_to_driver=False,
        )
    except (ConnectionError, ValueError) as fault:
        raise UsageError(f"no Ray cluster: {fault}", where="--address", got=address) from fault


def _slots(resources: dict[str, float], gpus_per_task: float) -> int:
    slots = int(resources.get("CPU", 0))
    if gpus_per_task:
        if not resources.get("GPU"):
            raise UsageError("the cluster has no GPU now", where="--gpus-per-task")
        slots = min(slots, int(resources["GPU"] / gpus_per_task + 1e-9))
    return max(1, slots)


@dataclass(kw_only=True)
class RayTasks:
    """The tasks of one job, and what happens when one of them is lost with its node."""

    job: Job
    remote: Any
    images: Any
    slots: int
    in_flight: int
    _flying: dict[Any, list[ModelSpec]] = field(default_factory=dict)
    _alone: deque[ModelSpec] = field(default_factory=deque)
    _losses: dict[str, int] = field(default_factory=dict)

    def replies(self, waiting: deque[ModelSpec]) -> Iterator[tuple[ModelSpec, dict[str, Any]]]:
        """Yield what tasks say of each spec, longest models first; see `Workers`."""
        import ray

        work = self._longest_first(waiting)
        target = min(max(work.values()), sum(work.values()) / (_TASKS_PER_SLOT * self.slots))
        while waiting or self._alone or self._flying:
            while (waiting or self._alone) and len(self._flying) < self.in_flight:
                if self._alone:
                    self._send([self._alone.popleft()])
                else:
                    self._send(_batch(waiting, work, target))
            ready, _ = ray.wait(list(self._flying), num_returns=1)
            specs = self._flying.pop(ready[0])
            replies = self._received(ready[0], specs)
            yield from self._kept(specs, replies)

    def _longest_first(self, waiting: deque[ModelSpec]) -> dict[str, float]:
        """Put the specs into the order of their work, in place, and return it by id."""
        count = cost_counter(len(self.job.dataset.train))
        work = {spec.id: count(spec).work for spec in waiting}
        ordered = sorted(waiting, key=lambda spec: -work[spec.id])
        waiting.clear()
        waiting.extend(ordered)
        return work

    def cancel(self) -> None:
        """Stop the tasks in flight."""
        import ray

        for reference in self._flying:
            ray.cancel(reference, force=True)

    def _send(self, specs: Sequence[ModelSpec]) -> None:
        place = str(self.job.place) if self.job.place.reached_from_anywhere else None
        tables = [spec.to_json() for spec in specs]
        self._flying[self.remote.remote(self.images, place, tables, versions())] = list(specs)

    def _received(self, reference: Any, specs: list[ModelSpec]) -> list[dict[str, Any]]:
        """Return a task's replies; none where it was lost, and its models wait again."""
        import ray

        try:
            replies: list[dict[str, Any]] = ray.get(reference)
            return replies
        except ray.exceptions.RayTaskError as fault:
            raise ZooError(f"a task failed: {fault}", where=f"model {specs[0].id}") from fault
        except ray.exceptions.RayError as fault:  # the process or its node is gone
            for spec in specs:
                self._losses[spec.id] = self._losses.get(spec.id, 0) + (len(specs) == 1)
                if self._losses[spec.id] == _MAX_LOSSES:
                    raise ZooError(
                        f"the worker was lost {_MAX_LOSSES} times: {fault}",
                        where=f"model {spec.id}",
                    ) from fault
            self._alone.extend(specs)
            return []

    def _kept(
        self, specs: Sequence[ModelSpec], replies: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[ModelSpec, dict[str, Any]]]:
        """Write what came back, and yield it."""
        for spec, reply in zip(specs, replies, strict=False):  # an error ends the replies
            if "error" in reply:
                raise ZooError(reply["error"], where=f"model {spec.id}")
            for name, content in reply.pop("files", ()):
                self.job.place.write(name, content)
            yield spec, reply


def _batch(waiting: deque[ModelSpec], work: dict[str, float], target: float) -> list[ModelSpec]:
    """Take models until they are `target` work; a substitute is as much as a whole task."""
    batch = [waiting.popleft()]
    total = work.get(batch[0].id, target)
    while waiting and total + work.get(waiting[0].id, target) <= target:
        batch.append(waiting.popleft())
        total += work.get(batch[-1].id, target)
    return batch
