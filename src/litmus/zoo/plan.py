"""What a zoo would cost: time, memory and disk, for this machine and for others."""

from __future__ import annotations

import resource
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from litmus.datasets import load_images
from litmus.errors import UsageError
from litmus.schema import STRICT, from_table
from litmus.zoo.ancestors import ancestors_of
from litmus.zoo.calibration import Family, calibrate, convolution_rate
from litmus.zoo.costs import Cost, cost_counter, extra_images
from litmus.zoo.expansion import expand
from litmus.zoo.places import open_place
from litmus.zoo.recipe import Recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import finished_ids

__all__ = ["Nodes", "Plan", "acceptance_of", "load_cluster", "plan_zoo"]

_FILE_BYTES: Final = 6_000
"""A zoo file's header and its `.build.json`."""

Positive = Annotated[float, Field(gt=0)]


@checked_dataclass(frozen=True, kw_only=True, config=STRICT)
class Nodes:
    """So many equal machines, each with `workers` that attain `gflops` in a plain convolution.

    A worker is a core. `gflops` None stands for as many as this machine's core attains.
    """

    count: Annotated[int, Field(ge=1)] = 1
    workers: Annotated[int, Field(ge=1)] = 1
    gflops: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe's zoo costs; seconds are CPU-seconds of one thread of this machine.

    `models` are asked for; `attempts` are trained and `accepted` stay, at the share `acceptance`
    of attempts that pass their gate. `flops` are of the trainings alone. `worker_bytes` is the
    memory that one worker takes, `disk_bytes` the finished zoo.
    """

    recipe: str
    models: int
    acceptance: float
    attempts: float
    accepted: float
    flops: float
    seconds: float
    longest: float
    gflops: float
    worker_bytes: int
    disk_bytes: int
    families: dict[str, tuple[int, float]]
    """By architecture: how many models, and CPU-seconds of all their attempts."""

    def hours(self, cluster: tuple[Nodes, ...]) -> float:
        """Return the hours that these machines take, each busy with nothing else.

        The speed of a machine is scaled by what its workers attain in a plain convolution. Longest
        models first, the last ones end close to each other; no zoo is done before its longest
        model. Starting the workers is not in it.
        """
        speeds = [(nodes.gflops or self.gflops) / self.gflops for nodes in cluster]
        total = sum(n.count * n.workers * s for n, s in zip(cluster, speeds, strict=True))
        return max(self.seconds / total, self.longest / max(speeds)) / 3600

    @property
    def cpu_hours(self) -> float:
        """Hours of one core of this machine."""
        return self.seconds / 3600


def plan_zoo(
    recipe: Recipe,
    *,
    scale: float = 1.0,
    acceptance: float = 1.0,
    data: str | Path | None = None,
) -> Plan:
    """Measure a few networks of a recipe on this machine and foretell its zoo's costs.

    `acceptance` is the share of attempts that pass their gate; `acceptance_of` reads it off a zoo.
    Raises UsageError for one that is not above 0 and at most 1.
    """
    if not 0 < acceptance <= 1:
        raise UsageError("--acceptance is impossible", expected="above 0, at most 1")
    dataset = load_images(recipe.dataset.name, data=data, **recipe.dataset.options())
    ancestors = ancestors_of(recipe, dataset.input_spec)
    specs = expand(recipe, dataset.input_spec, scale=scale, ancestors=ancestors)
    count = cost_counter(len(dataset.train))
    families = calibrate(specs, count, dataset)
    seconds = [_seconds(spec, count, families, len(dataset.test)) for spec in specs]
    accepted = 1 - (1 - acceptance) ** recipe.attempts
    tries = accepted / acceptance
    totals: dict[str, tuple[int, float]] = {}
    for spec, each in zip(specs, seconds, strict=True):
        name = str(spec.architecture["name"])
        number, total = totals.get(name, (0, 0.0))
        totals[name] = (number + 1, total + tries * each)
    costs = [count(spec) for spec in specs]
    return Plan(
        recipe=recipe.name,
        models=len(specs),
        acceptance=acceptance,
        attempts=tries * len(specs),
        accepted=accepted * len(specs),
        flops=tries * sum(cost.flops for cost in costs),
        seconds=tries * sum(seconds),
        longest=max(seconds),
        gflops=convolution_rate(),
        worker_bytes=_peak_memory(),
        disk_bytes=round(accepted * sum(4 * cost.size + _FILE_BYTES for cost in costs)),
        families=totals,
    )


def _seconds(
    spec: ModelSpec,
    count: Callable[[ModelSpec], Cost],
    families: dict[str, Family],
    test_images: int,
) -> float:
    cost = count(spec)
    share = extra_images(spec, test_images) / test_images / spec.attack["poison_ratio"]
    return families[str(spec.architecture["name"])].seconds(
        cost, predicted=round(test_images * (1 + share)), extra=cost.extra
    )


def acceptance_of(zoo: str | Path) -> float:
    """Return the share of a zoo's attempts that passed; raises UsageError where there are none."""
    accepted, rejected = map(len, finished_ids(open_place(zoo)))
    if not accepted:
        raise UsageError("the zoo has no models to go by", where=zoo)
    return accepted / (accepted + rejected)


def load_cluster(path: Path) -> tuple[Nodes, ...]:
    """Read a cluster: a TOML file with `[[nodes]]` tables; raises UsageError where it is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = content.pop("nodes")
    except (OSError, ValueError, KeyError) as fault:
        raise UsageError(f"no cluster: {fault}", expected="[[nodes]] tables", where=path) from fault
    if content or not tables:
        raise UsageError("no cluster", expected="[[nodes]] tables alone", where=path)
    return tuple(from_table(Nodes, table, f"{path}: nodes") for table in tables)


def _peak_memory() -> int:
    """Bytes that this process has needed; it has done what a worker does."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
