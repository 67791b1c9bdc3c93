"""Making the models of a plan that its folder lacks."""

from __future__ import annotations

from collections.abc import Generator

from litmus.artifacts import remove_temporary_files
from litmus.detectors import load_detector
from litmus.errors import UsageError
from litmus.evasion.plan import Plan
from litmus.evasion.scores import check_attackable
from litmus.zoo import BuildEvent
from litmus.zoo.crew import Crew
from litmus.zoo.groups import Waiting, seats
from litmus.zoo.store import finished_ids, write_recipe_table

__all__ = ["tune"]


def tune(plan: Plan, *, workers: int = 1) -> Generator[BuildEvent, None, None]:
    """Fine-tune the plan's models that are not there, yielding an event for each.

    Like `litmus.zoo.build`: closing the generator loses the models in flight and nothing else. A
    model that fails its gate is not tried again. Raises UsageError, DataError or ZooError before
    any model is made.
    """
    if workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    check_attackable(load_detector(plan.detector))
    plan.zoo.load_dataset()  # cached for the workers
    write_recipe_table(plan.folder, plan.recipe)
    remove_temporary_files(plan.folder)
    specs = list(plan.specs())
    accepted, rejected = finished_ids(plan.folder)
    missing = [spec for spec in specs if spec.id not in accepted | rejected]
    waiting = Waiting(seats(missing, 1))
    done = len(specs) - len(waiting)
    yield BuildEvent(kind="found", done=done, total=len(specs))
    if not waiting:
        return
    setup = {
        "data": None if plan.zoo.data is None else str(plan.zoo.data),
        "detector": str(plan.detector.resolve()),
        "zoo": str(plan.zoo.path.resolve()),
        "folder": str(plan.folder.resolve()),
    }
    with Crew(min(workers, len(waiting)), "litmus.evasion.worker", setup) as crew:
        for seat, reply in crew.replies(waiting):
            done += 1
            yield BuildEvent(
                kind="given_up" if reply["rejection"] else "accepted",
                done=done,
                total=len(specs),
                model_id=seat.spec.id,
                detail=reply["rejection"] or "",
                cpu_seconds=reply["cpu_seconds"],
            )
