"""The verb that repeats the paper's experiments."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import write_atomically
from litmus.cli.options import Data, Workers
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.reproduction import Experiment, Study

__all__ = ["reproduce"]

_PLACES = ("--zoos", "--recipes", "--data", "-o", "--output", "--workers")
"""Options that say nothing about the result; the recipes themselves stand in it."""


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="table1, figure1 to figure5, timing, ablations or intuition.",
            metavar="EXPERIMENT",
        ),
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A recipe's name; repeatable (default: the paper's)."),
    ] = None,
    zoos: Annotated[
        Path, typer.Option(metavar="DIR", help="Holds a zoo NAME/; what one lacks is built.")
    ] = Path("zoos"),
    recipes: Annotated[Path, typer.Option(metavar="DIR", help="Holds NAME.toml.")] = Path(
        "recipes/paper"
    ),
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="For JSON, Markdown and SVG.")
    ] = Path("results/paper"),
    scale: Annotated[
        str, typer.Option(help="Use the first part of the recipes: 0.33 or mnist=0.33,gtsrb=0.1.")
    ] = "1",
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0.")] = 3,
    patterns: Annotated[str, typer.Option(help="M, separated by commas.")] = "1,5,10",
    epochs: Annotated[
        int | None, typer.Option(help="Passes of a fit over the zoo's models (default: 60).")
    ] = None,
    baseline_models: Annotated[
        str, typer.Option(help="Test models that attack_based measures (others: 80).")
    ] = "mnist=120,cifar10=80,gtsrb=20",
    cleanse_models: Annotated[
        str, typer.Option(help="Test models that neural_cleanse measures (others: 80).")
    ] = "mnist=80,cifar10=80,gtsrb=80",
    workers: Workers = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how long it takes.")] = False,
) -> None:
    """Repeat an experiment of the paper and write it beside the paper's figures.

    Can be stopped and started again at any moment: what was finished is kept beside the zoos.
    """
    import os

    from litmus.reproduction import EXPERIMENTS

    if experiment not in EXPERIMENTS:
        raise UsageError("unknown experiment", expected=", ".join(EXPERIMENTS), got=experiment)
    if seeds < 1:
        raise UsageError("--seeds is impossible", expected="at least 1", got=seeds)
    chosen = EXPERIMENTS[experiment]
    names, companions = _recipes(chosen, dataset, recipes)
    counts = {
        "attack_models": (baseline_models, "--baseline-models"),
        "cleanse_models": (cleanse_models, "--cleanse-models"),
    }
    asked: dict[str, Any] = {
        "recipes": recipes,
        "zoos": zoos,
        "data": data,
        "companions": companions,
        "skip": dataset is None and chosen.several,
        "fitted": chosen.fitted,
        "scales": _scales(scale, [*names, *companions]),
        "command": shlex.join(["litmus", *_without_places(sys.argv[1:])]),
        "num_patterns": _numbers(patterns),
        "seeds": tuple(range(seeds)),
        "fitting": {} if epochs is None else {"epochs": epochs},
        **{field: _counts(text, option, names) for field, (text, option) in counts.items()},
    }
    _run(experiment, names, asked, workers or os.cpu_count() or 1, output, dry_run=dry_run)


def _run(
    experiment: str,
    names: Sequence[str],
    asked: Mapping[str, Any],
    workers: int,
    output: Path,
    *,
    dry_run: bool,
) -> None:
    from litmus.reports.reproduction import REPRODUCTION_REPORTS
    from litmus.reproduction import EXPERIMENTS, make_plan, open_study, run_tasks

    chosen = EXPERIMENTS[experiment]
    study = open_study(names, built=chosen.built, **asked)
    for name, reason in study.left_out.items():
        typer.echo(f"{name} is left out: {reason}", err=True)
    tasks = chosen.tasks(study)
    typer.echo(str(make_plan(study, tasks, workers=workers, alone=chosen.alone(study))))
    if dry_run:
        return
    try:
        if any(study.missing.values()):
            _build(study, workers, asked["data"])
            study = open_study(names, built=chosen.built, **asked)
            tasks = chosen.tasks(study)
        with bar("fits and measurements") as progress:
            shown = progress if tasks else _silent
            answers = run_tasks(tasks, workers=workers, on_progress=shown)
        with bar(experiment) as progress:
            result = chosen.result(study, answers, progress)
    except KeyboardInterrupt:
        typer.echo("stopped: the same command goes on", err=True)
        raise
    files = REPRODUCTION_REPORTS[experiment](result)
    for name, content in files.items():
        write_atomically(output / name, content)
    typer.echo(f"wrote {', '.join(files)} in {output}")


def _silent(done: int, total: int, note: str) -> None:
    pass


def _build(study: Study, workers: int, data: Path | None) -> None:
    from litmus.zoo import build

    for name, missing in study.missing.items():
        if not missing:
            continue
        zoo = study.zoos[name]
        events = build(
            study.recipes[name], zoo.path, workers=workers, scale=study.scales[name], data=data
        )
        with bar(f"training models of {name}") as progress, contextlib.closing(events):
            for event in events:
                progress(event.done, event.total)


def _recipes(
    experiment: Experiment, asked: Sequence[str] | None, folder: Path
) -> tuple[list[str], list[str]]:
    """Return the names of the recipes, and of those that stand beside them."""
    names = list(dict.fromkeys(asked or experiment.recipes))
    if not experiment.several and len(names) > 1:
        raise UsageError("this experiment takes one data set", got=", ".join(names))
    if asked is None and experiment.several:
        names = [name for name in names if (folder / f"{name}.toml").is_file()]
    companions = [f"{name}{experiment.companion}" for name in names if experiment.companion]
    for name in [*names, *companions] or experiment.recipes:
        if not (folder / f"{name}.toml").is_file():
            raise UsageError("no such recipe", expected=f"{name}.toml", where=folder)
    return names, companions


def _scales(text: str, names: Sequence[str]) -> dict[str, float]:
    from litmus.reproduction import parse_scales

    return parse_scales(text, names)


def _counts(text: str, option: str, names: Sequence[str]) -> dict[str, int]:
    from litmus.reproduction import named_numbers

    return dict.fromkeys(names, 80) | named_numbers(text, int, option)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise UsageError("not numbers", expected="1,5,10", got=text, where="--patterns")
    return numbers


def _without_places(arguments: Sequence[str]) -> list[str]:
    """The command as anyone could give it: without this machine's folders."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in _PLACES:
            skip = True
        elif not argument.startswith(tuple(f"{place}=" for place in _PLACES)):
            kept.append(argument)
    return kept
