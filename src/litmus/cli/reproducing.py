"""The verb that repeats the paper's experiments."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litmus.artifacts import write_atomically
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.fitting import MemberReport

__all__ = ["reproduce"]


def reproduce(
    experiment: Annotated[str, typer.Argument(help="table1 (with the ROC curves of Figure 5).")],
    recipe: Annotated[Path, typer.Option(help="The zoo's recipe.")],
    zoo: Annotated[Path, typer.Option(metavar="DIR", help="The zoo; what it lacks is built.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="For JSON, Markdown and SVG.")
    ],
    scale: Annotated[float, typer.Option(help="Use the first part of the recipe.")] = 1.0,
    patterns: Annotated[str, typer.Option(help="M, separated by commas.")] = "1,5,10",
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0.")] = 3,
    workers: Annotated[int | None, typer.Option(help="For building the zoo.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Local images.")] = None,
) -> None:
    """Repeat an experiment of the paper and write it beside the paper's figures."""
    import os

    from litmus.figures import roc_curves
    from litmus.reports.reproduction import table1_json, table1_markdown
    from litmus.reproduction import table1
    from litmus.zoo import Zoo, build, load_recipe

    if experiment != "table1":
        raise UsageError("unknown experiment", expected="table1", got=experiment)
    numbers = [int(part) for part in patterns.split(",") if part.strip().isdigit()]
    if not numbers:
        raise UsageError("not numbers", expected="1,5,10", got=patterns, where="--patterns")
    workers = workers or os.cpu_count() or 1
    with bar("training models") as progress:
        for event in build(load_recipe(recipe), zoo, workers=workers, scale=scale, data=data):
            progress(event.done, event.total)
    fits = 2 * len(numbers) * seeds
    finished: set[str] = set()
    with bar("fitting detectors") as progress:

        def report(cell: str, member: MemberReport) -> None:
            if member.epoch.epoch == member.epoch.epochs:
                finished.add(cell)
                progress(len(finished), fits, cell)

        result = table1(
            Zoo.open(zoo),
            command=shlex.join(["litmus", *_without_places(sys.argv[1:])]),
            num_patterns=numbers,
            seeds=range(seeds),
            scale=scale,
            on_progress=report,
        )
    write_atomically(output / "table1.json", table1_json(result))
    write_atomically(output / "table1.md", table1_markdown(result))
    write_atomically(
        output / "figure5.svg", roc_curves(result.curves, f"{result.dataset}, unseen triggers")
    )
    typer.echo(f"wrote {output / 'table1.json'}, table1.md and figure5.svg")


def _without_places(arguments: list[str]) -> list[str]:
    """The command as anyone could give it: without this machine's folders for zoo and data."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in ("--zoo", "--data"):
            skip = not skip
            continue
        kept.append(argument)
    return [*kept, "--zoo", "ZOO"]
