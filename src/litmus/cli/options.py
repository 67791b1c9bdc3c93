"""What several verbs do with their options: choices, numbers, settings, where a report goes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import write_atomically
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.detectors import Detector
    from litmus.detectors.effort import Effort
    from litmus.reports.scan import ScanContext
    from litmus.zoo import Zoo

__all__ = [
    "Channels",
    "Data",
    "Layout",
    "Mean",
    "NominalRate",
    "Outputs",
    "ReportFile",
    "Scale",
    "Std",
    "TrustCode",
    "Workers",
    "ZooFolder",
    "ZooFolders",
    "choice",
    "deliver",
    "for_file",
    "given_command",
    "label",
    "load_by_label",
    "numbers",
    "open_zoo",
    "parse_settings",
    "report_files",
    "scan_context",
    "zoo_folder",
]


def zoo_folder(text: str) -> Path:
    """Return a zoo's folder; for a URL, a copy of it in the cache, brought up to date."""
    if "://" not in text:
        return Path(text)
    from litmus.zoo.places import local_folder

    return local_folder(text)


ZooFolder = Annotated[
    Path,
    typer.Argument(
        parser=zoo_folder, metavar="ZOO", help="A zoo's folder, or its URL (s3://bucket/zoo)."
    ),
]
ZooFolders = Annotated[
    list[Path],
    typer.Argument(
        parser=zoo_folder,
        metavar="ZOO...",
        help="Zoos' folders, or URLs (s3://bucket/zoo); several are read as one.",
    ),
]
NominalRate = Annotated[float, typer.Option(help="The nominal false-positive rate.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes, one thread each (default: one a core).")
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Local images in place of the hub ($LITMUS_DATA does too)."
    ),
]
ReportFile = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the report to a file.")
]
Scale = Annotated[
    float | None, typer.Option(help="255 for models that eat raw bytes (default: 1).")
]
Mean = Annotated[
    str | None,
    typer.Option(help="Subtracted after scaling: one number or one a channel, 0.5,0.5,0.5."),
]
Std = Annotated[str | None, typer.Option(help="Divided by last, like --mean.")]
Layout = Annotated[str | None, typer.Option(help="nchw or nhwc (default: from shape).")]
Channels = Annotated[str | None, typer.Option(help="rgb or bgr (default: rgb).")]
Outputs = Annotated[
    str | None, typer.Option(help="logits or probabilities (default: from the graph).")
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the code that --architecture names.")
]


def open_zoo(folder: Path, *more: Path, data: Path | None) -> Zoo:
    """Open a zoo, or several as one.

    Raises DataError at once where `data` is named and lacks its images.
    """
    from litmus.zoo import Zoo

    zoo = Zoo.open(folder, *more, data=data)
    if data is not None:
        zoo.load_dataset()
    return zoo


def choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of those allowed."""
    if value not in allowed:
        raise UsageError("unknown choice", expected=" or ".join(allowed), got=value, where=option)


def effort_named(effort: str) -> Effort:
    """Return an effort by its name; raises UsageError for an unknown one."""
    from litmus.detectors.effort import EFFORTS

    choice("--effort", effort, EFFORTS)
    return next(known for known in EFFORTS if known == effort)


def given_command(program: str = "litmus") -> str:
    """Return the command as it was given to a program, without this machine's folders."""
    return " ".join([program, shlex.join(map(_without_folder, sys.argv[1:]))]).rstrip()


def _without_folder(argument: str) -> str:
    """This machine's folders are nobody's business: their last part says which one."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def label(name: str, all_names: Sequence[str]) -> str:
    """Return what a detector is called: its file's stem, or the whole where two stems are equal."""
    stems = [Path(other).stem for other in all_names]
    return name if stems.count(Path(name).stem) > 1 else Path(name).stem


def load_by_label(names: Sequence[str]) -> dict[str, Detector]:
    """Return detectors by what they are called; raises UsageError where one is named twice."""
    from litmus.detectors import load_detector

    loaded = {label(name, names): load_detector(name) for name in names}
    if len(loaded) < len(names):
        raise UsageError("a detector is named twice", got=", ".join(names))
    return loaded


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers between commas; raises UsageError where there are others."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as fault:
        raise UsageError(
            "not numbers", expected="0.5 or 0.49,0.48,0.44", got=text, where=option
        ) from fault


def parse_settings(defaults: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings that NAME=VALUE pairs give, each of the kind of its default.

    Raises UsageError for an unknown name or a value of another kind.
    """
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in defaults:
            expected = ", ".join(f"{key}={value}" for key, value in defaults.items())
            raise UsageError("unknown setting", expected=expected, got=pair, where="--set")
        settings[name] = _value(pair, text, defaults[name])
    return settings


def _value(pair: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    right = type(value) is type(default) or (type(default), type(value)) == (float, int)
    if not right:
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UsageError("wrong value", expected=kinds[type(default)], got=pair, where="--set")
    return float(value) if isinstance(default, float) else value


def deliver(report: str, output: Path | None) -> None:
    """Print a report, or write it to a file."""
    if output is None:
        typer.echo(report, nl=False)
    else:
        write_atomically(output, report)


def report_files(pairs: Sequence[str], formats: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Return the format and the file of each FORMAT=FILE; raises UsageError for another format."""
    found = []
    for pair in pairs:
        name, _, file = pair.partition("=")
        if name not in formats or not file:
            expected = f"FORMAT=FILE, of {', '.join(formats)}"
            raise UsageError("no such report", expected=expected, got=pair, where="--report")
        found.append((name, Path(file)))
    return found


def scan_context(*, to_terminal: bool, **options: Any) -> ScanContext:
    """Return the context of a scan's report, with the time, the place and the terminal.

    Colour is for a terminal whose user has not set NO_COLOR.
    """
    from litmus.reports.scan import ScanContext

    context = ScanContext(root=Path.cwd(), finished=datetime.now(UTC), **options)
    if not to_terminal:
        return for_file(context)
    if not sys.stdout.isatty():
        return context
    columns = shutil.get_terminal_size().columns
    return replace(context, width=columns, colour=not os.environ.get("NO_COLOR"))


def for_file(context: ScanContext) -> ScanContext:
    """Return the context for a report that is kept: with versions, not as a terminal takes it."""
    from litmus.artifacts import library_versions

    return replace(context, versions=library_versions(), colour=False, width=200)
