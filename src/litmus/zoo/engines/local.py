"""Processes of this machine, one thread each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from litmus.datasets import ImageDataset
from litmus.errors import UsageError
from litmus.stacked_training import StackSettings
from litmus.zoo.crew import Crew
from litmus.zoo.engines.base import Job
from litmus.zoo.plan import Nodes
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stacks import step_seconds

__all__ = ["LocalEngine"]


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Worker processes, each with one model or stack in hand; unless told otherwise one a core.

    On a GPU it is one in all. Models are made in the recipe's order, so that a zoo that is not
    finished yet already has a bit of everything; longest first would gain less than one model's
    time.
    """

    def machines(self) -> tuple[Nodes, ...]:
        """Return this machine."""
        return (Nodes(workers=os.cpu_count() or 1),)

    def step_seconds(
        self, spec: ModelSpec, dataset: ImageDataset, settings: StackSettings
    ) -> Mapping[int, float]:
        """Measure in this process; raises UsageError where the GPU is missing."""
        _check_device(settings.device)
        return step_seconds(spec, dataset, settings)

    def workers(self, job: Job, limit: int | None) -> Crew:
        """Return processes that load the images themselves: from the cache, in a moment."""
        _check_device(job.plan.settings.device)
        setup = {
            "dataset": job.dataset.name,
            "options": job.options,
            "data": job.data,
            "place": str(job.place),
            "plan": job.plan.to_json(),
        }
        size = limit or (1 if job.plan.on_gpu else os.cpu_count() or 1)
        return Crew(min(size, job.count), "litmus.zoo.worker", setup, stack=job.plan.size)


def _check_device(device: str) -> None:
    """Raise UsageError where this machine lacks the GPU."""
    if device == "cpu":
        return
    count = torch.cuda.device_count()
    if (torch.device(device).index or 0) >= count:
        expected = f"cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise UsageError("there is no such GPU", expected=expected, got=device, where="--device")
