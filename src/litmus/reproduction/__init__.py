"""The paper's experiments: from zoos to results that can be written down.

An experiment says which tasks it needs and what follows from their results; tasks are cached
beside the zoos and run in several processes. A new one is one file and one line in
`EXPERIMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from litmus.reproduction import (
    ablations,
    detection,
    intuition,
    pictures,
    poison_ratios,
    timing,
)
from litmus.reproduction.plan import Plan, make_plan
from litmus.reproduction.pool import Answers, Progress, run_tasks
from litmus.reproduction.results import Result
from litmus.reproduction.study import Study, named_numbers, open_study, parse_scales
from litmus.reproduction.tasks import Task, Work

__all__ = [
    "EXPERIMENTS",
    "Answers",
    "Experiment",
    "Plan",
    "Result",
    "Study",
    "make_plan",
    "named_numbers",
    "open_study",
    "parse_scales",
    "run_tasks",
]

_EVERY: Final = ("mnist", "cifar10", "gtsrb")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What `litmus reproduce` repeats.

    `recipes` are taken by default, all of them if `several`, else the one. `companion` is the
    ending of a second zoo's name. `fitted` experiments fit detectors, `built` ones need models;
    `alone` is work that is measured in this process, by recipe.
    """

    tasks: Callable[[Study], Sequence[Task]]
    result: Callable[[Study, Answers, Progress], Result]
    recipes: tuple[str, ...] = ("mnist",)
    several: bool = False
    companion: str | None = None
    fitted: bool = True
    built: bool = True
    alone: Callable[[Study], Sequence[tuple[str, Work]]] = lambda study: ()


def _nothing(study: Study) -> list[Task]:
    return []


EXPERIMENTS: Final[dict[str, Experiment]] = {
    "table1": Experiment(
        tasks=detection.table1_tasks, result=detection.table1, recipes=_EVERY, several=True
    ),
    "figure1": Experiment(tasks=pictures.figure1_tasks, result=pictures.figure1),
    "figure2": Experiment(
        tasks=_nothing, result=pictures.figure2, recipes=("gtsrb",), fitted=False
    ),
    "figure3": Experiment(tasks=_nothing, result=pictures.figure3, fitted=False, built=False),
    "figure4": Experiment(
        tasks=poison_ratios.figure4_tasks,
        result=poison_ratios.figure4,
        companion=poison_ratios.COMPANION,
    ),
    "figure5": Experiment(
        tasks=detection.table1_tasks, result=detection.figure5, recipes=_EVERY, several=True
    ),
    "timing": Experiment(
        tasks=timing.timing_tasks,
        result=timing.timing,
        recipes=_EVERY,
        several=True,
        alone=timing.timing_work,
    ),
    "ablations": Experiment(tasks=ablations.ablations_tasks, result=ablations.ablations),
    "intuition": Experiment(tasks=intuition.intuition_tasks, result=intuition.intuition),
}
