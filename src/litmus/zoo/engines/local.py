"""Processes of this machine, one thread each."""

from __future__ import annotations

import os
from dataclasses import dataclass

from litmus.zoo.crew import Crew
from litmus.zoo.engines.base import Job

__all__ = ["LocalEngine"]


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Worker processes, each with one model in hand; one a core unless told otherwise.

    Models are made in the recipe's order, so that a zoo that is not finished yet already has a
    bit of everything; longest first would gain less than one model's time.
    """

    def workers(self, job: Job, limit: int | None) -> Crew:
        """Return processes that load the images themselves: from the cache, in a moment."""
        setup = {
            "dataset": job.dataset.name,
            "options": job.options,
            "data": job.data,
            "place": str(job.place),
        }
        size = limit or os.cpu_count() or 1
        return Crew(min(size, job.count), "litmus.zoo.worker", setup)
