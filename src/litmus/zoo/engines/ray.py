"""A Ray cluster: tasks of about the same length, on whatever nodes there are."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from litmus.datasets import ImageDataset
from litmus.errors import MissingExtraError, UsageError, ZooError
from litmus.stacked_training import StackSettings
from litmus.zoo.ancestors import kept_in
from litmus.zoo.costs import cost_counter
from litmus.zoo.engines.base import Job
from litmus.zoo.engines.ray_task import make_models, measure, pack, versions
from litmus.zoo.groups import Seat, Waiting, named
from litmus.zoo.plan import Nodes
from litmus.zoo.spec import ModelSpec

__all__ = ["RayEngine"]

Group = tuple[Seat, ...]

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

    def machines(self) -> tuple[Nodes, ...]:
        """Return the cluster's nodes as it is now, without those that give tasks no core."""
        with _connected(self.address) as ray:
            return alive(ray.nodes())

    def step_seconds(
        self, spec: ModelSpec, dataset: ImageDataset, settings: StackSettings
    ) -> Mapping[int, float]:
        """Measure in a task on some node."""
        self._check(settings)
        with _connected(self.address) as ray:
            _slots(ray.cluster_resources(), self.gpus_per_task)
            remote = ray.remote(num_cpus=1, num_gpus=self.gpus_per_task)(measure)
            task = remote.remote(ray.put(pack(dataset)), spec.to_json(), settings)
            try:
                found: Mapping[int, float] = ray.get(task)
            except ray.exceptions.RayError as fault:
                raise ZooError(f"stacks can't be measured: {fault}") from fault
        return found

    @contextmanager
    def workers(self, job: Job, limit: int | None) -> Iterator[RayTasks]:
        """Connect to the cluster for one job, and put the images there once."""
        self._check(job.plan.settings)
        with _connected(self.address) as ray:
            slots = _slots(ray.cluster_resources(), self.gpus_per_task)
            remote = ray.remote(
                num_cpus=1,
                num_gpus=self.gpus_per_task,
                max_retries=0,  # `RayTasks` tries again, one model or stack at a time
                scheduling_strategy="SPREAD",
            )(make_models)
            tasks = RayTasks(
                job=job,
                remote=remote,
                images=ray.put(pack(job.dataset)),
                ancestors=ray.put({key: kept_in(job.place)(key) for key in job.ancestors}),
                slots=min(slots, limit or slots),
                in_flight=limit or _IN_FLIGHT * slots,
            )
            try:
                yield tasks
            finally:
                tasks.cancel()

    def _check(self, settings: StackSettings) -> None:
        if self.gpus_per_task < 0:
            raise UsageError("impossible share of a GPU", got=self.gpus_per_task)
        if settings.device.startswith("cuda:"):
            raise UsageError(
                "Ray tells a task its GPU", expected="cuda", got=settings.device, where="--device"
            )
        if settings.device == "cuda" and not self.gpus_per_task:
            raise UsageError("a task without a share of a GPU has none", where="--gpus-per-task")


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster; leaves it as it was."""
    try:
        import ray
    except ModuleNotFoundError as fault:
        raise MissingExtraError(
            "Ray is not installed", expected="pip install 'litmus-patterns[ray]'"
        ) from fault
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                address=address or os.environ.get("RAY_ADDRESS"),
                logging_level="warning",
                log_to_driver=False,
            )
        except (ConnectionError, ValueError) as fault:
            raise UsageError(f"no Ray cluster: {fault}", where="--address", got=address) from fault
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def alive(nodes: Sequence[Mapping[str, Any]]) -> tuple[Nodes, ...]:
    """Return what `ray.nodes()` tells of nodes that are alive and have cores, largest first.

    Raises UsageError where there are none.
    """
    cores = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    counts = Counter(number for number in cores if number)
    if not counts:
        raise UsageError("the cluster has no core now", expected="--cluster FILE.toml")
    return tuple(Nodes(count=counts[n], workers=n) for n in sorted(counts, reverse=True))


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
    ancestors: Any
    slots: int
    in_flight: int
    _flying: dict[Any, list[Group]] = field(default_factory=dict)
    _alone: deque[Group] = field(default_factory=deque)
    _losses: dict[str, int] = field(default_factory=dict)

    def replies(self, waiting: Waiting) -> Iterator[tuple[Seat, dict[str, Any]]]:
        """Yield what tasks say of each model, longest models first; see `Workers`."""
        import ray

        size = self.job.plan.size

        work = self._longest_first(waiting)
        longest = size * max(work.values())
        target = min(longest, sum(work.values()) / (_TASKS_PER_SLOT * self.slots))
        while waiting or self._alone or self._flying:
            while (waiting or self._alone) and len(self._flying) < self.in_flight:
                if self._alone:
                    self._send([self._alone.popleft()])
                else:
                    self._send(_batch(waiting, size, work, target))
            ready, _ = ray.wait(list(self._flying), num_returns=1)
            groups = self._flying.pop(ready[0])
            replies = self._received(ready[0], groups)
            yield from self._kept([seat for group in groups for seat in group], replies)

    def _longest_first(self, waiting: Waiting) -> dict[str, float]:
        """Put the models into the order of their work, in place, and return it by id."""
        count = cost_counter(len(self.job.dataset.train))
        work = {spec.id: count(spec).work for spec in waiting.specs()}
        waiting.sort(lambda spec: -work[spec.id])
        return work

    def cancel(self) -> None:
        """Stop the tasks in flight."""
        import ray

        for reference in self._flying:
            ray.cancel(reference, force=True)

    def _send(self, groups: list[Group]) -> None:
        place = str(self.job.place) if self.job.place.reached_from_anywhere else None
        tables = [[seat.to_json() for seat in group] for group in groups]
        task = self.remote.remote(
            self.images, self.ancestors, place, tables, self.job.plan.to_json(), versions()
        )
        self._flying[task] = groups

    def _received(self, reference: Any, groups: list[Group]) -> list[dict[str, Any]]:
        """Return a task's replies; none where it was lost, and its models wait again."""
        import ray

        try:
            replies: list[dict[str, Any]] = ray.get(reference)
            return replies
        except ray.exceptions.RayTaskError as fault:
            raise ZooError(f"a task failed: {fault}", where=named(groups[0])) from fault
        except ray.exceptions.RayError as fault:  # the process or its node is gone
            for group in groups:
                first = group[0].spec.id  # which stays in its group
                self._losses[first] = self._losses.get(first, 0) + (len(groups) == 1)
                if self._losses[first] == _MAX_LOSSES:
                    raise ZooError(
                        f"the worker was lost {_MAX_LOSSES} times: {fault}", where=named(group)
                    ) from fault
            self._alone.extend(groups)
            return []

    def _kept(
        self, seats: Sequence[Seat], replies: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[Seat, dict[str, Any]]]:
        """Write what came back, and yield it."""
        for seat, reply in zip(seats, replies, strict=False):  # an error ends the replies
            if "error" in reply:
                raise ZooError(reply["error"], where=f"model {seat.spec.id}")
            for name, content in reply.pop("files", ()):
                self.job.place.write(name, content)
            yield seat, reply


def _batch(waiting: Waiting, size: int, work: dict[str, float], target: float) -> list[Group]:
    """Take stacks until they are `target` work; a substitute is as much as a whole task.

    A stack that is not full is as much work as one that is.
    """
    batch: list[Group] = []
    total = 0.0
    while waiting:
        total += size * work.get(waiting.first.id, target)
        if batch and total > target:
            break
        batch.append(waiting.take(size))
    return batch
