"""The verb that asks for a second opinion with a picture."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litmus.cli.completion import detector_names
from litmus.cli.options import (
    Channels,
    Layout,
    Mean,
    Outputs,
    ReportFile,
    Scale,
    Std,
    TrustCode,
    choice,
    deliver,
    numbers,
)
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.reports.explain import ExplainContext
    from litmus.scanning.explaining import ExplainSettings

__all__ = ["explain"]


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="One model file.")],
    images: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Clean images, one folder a class, or a data set by name."
        ),
    ],
    format_: Annotated[
        str, typer.Option("-f", "--format", help="text, json, or html with pictures.")
    ] = "text",
    output: ReportFile = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="0,3,...", help="Target classes, as the model counts them (default: all)."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of optimisation for each mask.")] = 200,
    patch_size: Annotated[
        int, typer.Option(help="Side of the patch for pairs of classes, in pixels.")
    ] = 5,
    place: Annotated[
        str, typer.Option(help="Where that patch lies: corner, anywhere or surface.")
    ] = "corner",
    seed: Annotated[int, typer.Option(help="Seed of the images drawn and of their order.")] = 0,
    timeout: Annotated[
        float, typer.Option(help="Seconds for all of it; what is not ready then is left out.")
    ] = 1800.0,
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="Processes, one thread each.")] = 1,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Whose reference images tell how the model wants its input (default: a bundled "
            "detector's of its shape, if any).",
            autocompletion=detector_names,
        ),
    ] = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    channels: Channels = None,
    outputs: Outputs = None,
    architecture: Annotated[
        str | None, typer.Option(help="The network of files with weights alone: see litmus scan.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Reverse triggers of one model on clean images: a second opinion, with a picture.

    It shows which class is reached most easily, by which trigger, and how many images that turns.
    It is no verdict. Exit codes: 0 explained, 2 an error, 3 the model can't be explained, 4 usage.
    """
    from litmus.formats.preprocessing import Preprocessing
    from litmus.reports.explain import EXPLAIN_REPORTS
    from litmus.scanning.explaining import ExplainSettings
    from litmus.scanning.explaining import explain as run
    from litmus.scanning.explanation import Explanation
    from litmus.scanning.results import Failed, printable

    choice("--format", format_, tuple(EXPLAIN_REPORTS))
    settings = ExplainSettings(
        steps=steps,
        patch_size=patch_size,
        place=place,
        classes=_classes(classes),
        seconds=timeout,
        seed=seed,
    )
    flags = Preprocessing.from_options(
        scale=scale,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        layout=layout,
        channels=channels,
        outputs=outputs,
    )
    with bar("reversing triggers") as progress:
        result = run(
            model,
            images=images,
            settings=settings,
            detector=detector,
            preprocessing=flags,
            jobs=jobs,
            architecture=architecture,
            trust_code=trust_code,
            on_progress=progress,
        )
    if isinstance(result, Explanation):
        to_terminal = format_ == "text" and output is None
        deliver(EXPLAIN_REPORTS[format_](result, _context(settings, to_terminal)), output)
        return
    failed = isinstance(result, Failed)
    reason = result.error if isinstance(result, Failed) else result.reason
    said = f"{'FAILED' if failed else 'skipped'} {model}: {reason}"
    typer.echo(printable(said), err=True)
    raise typer.Exit(2 if failed else 3)


def _classes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as fault:
        raise UsageError("not classes", expected="0,3,7", got=text, where="--classes") from fault


def _context(settings: ExplainSettings, to_terminal: bool) -> ExplainContext:
    from litmus.artifacts import library_versions
    from litmus.reports.explain import ExplainContext

    is_terminal = to_terminal and sys.stdout.isatty()
    return ExplainContext(
        settings=settings,
        versions=library_versions(),
        finished=datetime.now(UTC),
        colour=is_terminal and not os.environ.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if is_terminal else 200,
    )
