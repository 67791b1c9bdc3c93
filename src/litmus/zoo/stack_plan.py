"""How many models of a zoo are trained at a time, and how: kept in `zoo.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from litmus.errors import UsageError, ZooError
from litmus.stacked_training import PLAIN, Precision, StackSettings
from litmus.zoo.places import Place, open_place
from litmus.zoo.store import INDEX, read_index

__all__ = ["ONE_AT_A_TIME", "StackPlan", "StackRequest", "read_plan", "write_plan"]

_KEY: Final = "stack"


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """G, the models that are trained at a time, and how.

    A size of 1 on the CPU is training by `litmus.zoo.trainer.train_model`.
    """

    size: int = 1
    settings: StackSettings = PLAIN

    @property
    def single(self) -> bool:
        """Whether models are trained one at a time, on the CPU."""
        return self.size == 1 and self.settings == PLAIN

    @property
    def on_gpu(self) -> bool:
        """Whether the models are trained on a GPU."""
        return self.settings.device != "cpu"

    @property
    def kept(self) -> StackPlan:
        """The plan for `zoo.json` and headers: which of a machine's GPUs it was is left out."""
        device = self.settings.device.partition(":")[0]
        return replace(self, settings=replace(self.settings, device=device))

    def __str__(self) -> str:
        return f"{self.size} at a time on {self.settings.device} in {self.settings.precision}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"size": self.size, **asdict(self.settings)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StackPlan:
        """Read what `to_json` wrote."""
        settings = {k: v for k, v in value.items() if k != "size"}
        return cls(size=value["size"], settings=StackSettings(**settings))


ONE_AT_A_TIME: Final = StackPlan()


@dataclass(frozen=True, kw_only=True)
class StackRequest:
    """What the caller of a build says of stacks; None is what the zoo was begun with.

    A new zoo is trained one model at a time on the CPU, and in stacks of a measured size on a GPU.
    Raises UsageError for what is impossible.
    """

    size: int | Literal["auto"] | None = None
    device: str | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, int) and self.size < 1:
            raise UsageError("--stack is impossible", expected="auto or at least 1", got=self.size)
        if self.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise UsageError("--device is unknown", expected="cpu, cuda or cuda:N", got=self.device)
        names = get_args(Precision)
        if self.precision not in (None, *names):
            raise UsageError(
                "--precision is unknown", expected=" or ".join(names), got=self.precision
            )

    def plan(self, begun: StackPlan | None, where: Path | str) -> StackPlan | None:
        """Return the plan of a zoo that was `begun` with one; None: its size is to be measured.

        Raises ZooError where it was begun with another plan than what is asked for, and UsageError
        for a precision that only GPUs have.
        """
        settings = self.settings(begun)
        if settings.device == "cpu" and settings.precision != PLAIN.precision:
            raise UsageError("--precision is for a GPU", expected="--device cuda")
        if begun is None:
            on_gpu = settings.device != "cpu"
            if self.size == "auto" or (self.size is None and on_gpu):
                return None
            return StackPlan(size=self.size or 1, settings=settings)
        size = self.size if isinstance(self.size, int) else begun.size
        plan = StackPlan(size=size, settings=settings)
        if plan.kept != begun:
            raise ZooError("the zoo was begun otherwise", expected=begun, got=plan, where=where)
        return plan

    def settings(self, begun: StackPlan | None) -> StackSettings:
        """Return where and how stacks are trained."""
        before = PLAIN if begun is None else begun.settings
        return replace(
            before,
            device=self.device or before.device,
            precision=self.precision or before.precision,
        )


def write_plan(folder: Path | Place, plan: StackPlan) -> None:
    """Keep a plan in a zoo's `zoo.json`."""
    place = open_place(folder)
    content = read_index(place) or {}
    place.write(INDEX, json.dumps({**content, _KEY: plan.kept.to_json()}, indent=1))


def read_plan(folder: Path | Place) -> StackPlan | None:
    """Return the plan that a zoo's `zoo.json` has, if any."""
    place = open_place(folder)
    table = (read_index(place) or {}).get(_KEY)
    try:
        return None if table is None else StackPlan.from_json(table)
    except (KeyError, TypeError) as fault:
        raise ZooError(f"damaged: {fault}", where=place.where(INDEX)) from fault
