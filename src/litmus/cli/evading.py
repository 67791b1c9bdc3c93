"""The verb `evade`: what an attacker who knows a detector can do."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import machine_facts, sha256_of, write_atomically
from litmus.cli.detecting import fit_progress
from litmus.cli.options import (
    Data,
    NominalRate,
    Workers,
    ZooFolder,
    given_command,
    label,
    load_by_label,
    open_zoo,
    parse_settings,
)
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.detectors import Detector
    from litmus.evasion import Plan, Tuned
    from litmus.zoo import Zoo

__all__ = ["evade"]

_REFITTED = "refitted"


def evade(
    zoo: ZooFolder,
    detector: Annotated[
        str, typer.Option(help="The detector to evade: a .litmus file or bundled name.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="For JSON and Markdown.")
    ],
    other: Annotated[
        list[str] | None,
        typer.Option(help="Another detector to ask too, of another seed, say; repeatable."),
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option(
            metavar="ZOO",
            help="The zoo that the detector was fitted on: fit it again there, with models that "
            "evade it.",
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where fine-tuned models go (default: ZOO-fine-tuned)."),
    ] = None,
    models: Annotated[int, typer.Option(help="Backdoored models that evade it.")] = 30,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="weight, aim (low or clean), epochs, batch_size, learning_rate; repeatable.",
        ),
    ] = None,
    fpr: NominalRate = 0.05,
    seed: Annotated[int, typer.Option(help="Chooses models, draws their batches.")] = 0,
    workers: Workers = None,
    data: Data = None,
) -> None:
    """Fine-tune backdoored models so that a detector no longer sees them, and measure what is left.

    Test models of ZOO are trained on with the detector's own score in their loss; others, and the
    clean ones, without it. Can be stopped and started again at any moment.
    """
    import os

    from litmus.detectors import find_detector
    from litmus.evaluation import check_detectors
    from litmus.evasion import EvasionSettings, check_apart, make_plan, read_tuned, study
    from litmus.reports.evasion import evasion_files, evasion_text

    names = [detector, *(other or [])]
    detectors = load_by_label(names)
    if _REFITTED in detectors:
        raise UsageError("the refitted detector has this name", got=_REFITTED, where="--other")
    chosen = EvasionSettings(**parse_settings(vars(EvasionSettings()), settings or []))
    plan = make_plan(
        open_zoo(zoo, data=data),
        find_detector(detector),
        tuned or zoo.resolve().with_name(f"{zoo.resolve().name}-fine-tuned"),
        models=models,
        refit=refit is not None,
        settings=chosen,
        seed=seed,
    )
    check_detectors(plan.zoo, detectors, fpr)  # before the work, not after
    fitted_on = None if refit is None else open_zoo(refit, data=data)
    if fitted_on is not None:
        check_apart(fitted_on, plan)
    _tune(plan, workers or os.cpu_count() or 1)
    made = read_tuned(plan)
    if fitted_on is not None:
        detectors[_REFITTED] = _refit(plan, label(detector, names), detectors, made, fitted_on)
    with bar("scoring models") as progress:
        result = study(
            plan,
            detectors,
            tuned=made,
            fpr=fpr,
            refitted=refit is not None,
            on_progress=progress,
        )
    files = evasion_files(result, _provenance(plan, names, detectors))
    for name, content in files.items():
        write_atomically(output / name, content)
    typer.echo(evasion_text(result), nl=False)
    typer.echo(f"wrote {' and '.join(str(output / name) for name in files)}")


def _tune(plan: Plan, workers: int) -> None:
    from litmus.evasion import tune

    events = tune(plan, workers=workers)
    with bar("fine-tuning models") as progress, contextlib.closing(events):
        try:
            for event in events:
                progress(event.done, event.total)
                if event.kind == "given_up":
                    progress.say(f"{event.model_id} fails its gate: {event.detail}")
        except KeyboardInterrupt:
            typer.echo("stopped: the same command goes on", err=True)
            raise


def _refit(
    plan: Plan,
    name: str,
    detectors: Mapping[str, Detector],
    made: Mapping[str, Tuned],
    fitted_on: Zoo,
) -> Detector:
    from litmus.evasion import added_models, refit

    with bar("fitting again") as progress:
        refitted = refit(
            detectors[name],
            fitted_on,
            added_models(plan, made),
            on_progress=fit_progress(progress),
        )
    file = plan.folder / f"{name}-{_REFITTED}.litmus"
    write_atomically(file, refitted.to_bytes())
    typer.echo(f"wrote {file}")
    return refitted


def _provenance(plan: Plan, names: list[str], detectors: dict[str, Detector]) -> dict[str, Any]:
    from importlib.metadata import version

    import litmus
    from litmus.detectors import find_detector

    return {
        "command": given_command(),
        "recipe": plan.zoo.recipe,
        "seeds": [plan.seed],
        "machine": machine_facts(),
        "litmus_version": litmus.__version__,
        "torch_version": version("torch"),
        "detectors": {
            label(name, names): {
                "sha256": sha256_of(find_detector(name)),
                "seed": detectors[label(name, names)].scope.get("seed"),
            }
            for name in names
        },
    }
