"""Verbs for pipelines: the schema of a report, and the call of NIST's TrojAI containers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from litmus.artifacts import write_atomically
from litmus.cli.completion import detector_names
from litmus.errors import UsageError

__all__ = ["schema", "trojai"]

_ANY_FPR: Final = 0.5
"""A probability has no threshold; each detector can promise this rate."""


def schema() -> None:
    """Print the JSON Schema of `litmus scan -f json`."""
    from litmus.reports.scan import json_schema

    typer.echo(json_schema(), nl=False)


def trojai(
    model_filepath: Annotated[Path, typer.Option("--model_filepath", help="The model's file.")],
    result_filepath: Annotated[
        Path, typer.Option("--result_filepath", help="Gets one line: the probability.")
    ],
    learned_parameters_dirpath: Annotated[
        Path | None,
        typer.Option(
            "--learned_parameters_dirpath",
            help="A folder of detectors; the model's shape picks one (default: bundled ones).",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="A bundled detector's name, or a .litmus file.", autocompletion=detector_names
        ),
    ] = None,
    mode: Annotated[str, typer.Argument(hidden=True, metavar="[infer]")] = "infer",
    scratch_dirpath: Annotated[str, typer.Option("--scratch_dirpath", hidden=True)] = "",
    examples_dirpath: Annotated[str, typer.Option("--examples_dirpath", hidden=True)] = "",
    round_training_dataset_dirpath: Annotated[
        str, typer.Option("--round_training_dataset_dirpath", hidden=True)
    ] = "",
    metaparameters_filepath: Annotated[
        str, typer.Option("--metaparameters_filepath", hidden=True)
    ] = "",
    schema_filepath: Annotated[str, typer.Option("--schema_filepath", hidden=True)] = "",
    scale_parameters_filepath: Annotated[
        str, typer.Option("--scale_parameters_filepath", hidden=True)
    ] = "",
) -> None:
    """Write the probability that a model is backdoored, called as NIST's TrojAI containers are.

    What else their harness gives (scratch, examples, metaparameters, ...) is taken and not used.
    Where a model can't be scored nothing is written. Exit codes: 0 scored, 2 an error, 3 skipped.
    """
    from litmus.detectors.candidates import Candidates
    from litmus.scanning import Failed, Scored, scan

    if mode != "infer":
        raise UsageError("only inference is offered; litmus fit makes detectors", got=mode)
    if model_filepath.is_dir():
        raise UsageError("a folder, and not a model's file", got=model_filepath)
    if detector and learned_parameters_dirpath:
        raise UsageError("--detector and --learned_parameters_dirpath exclude each other")
    if detector:
        candidates = Candidates.of(detector)
    elif learned_parameters_dirpath:
        candidates = Candidates.bundled(learned_parameters_dirpath)
    else:
        candidates = Candidates.bundled()
    (result,) = scan(model_filepath, detector=candidates, fpr=_ANY_FPR)
    if not isinstance(result, Scored):
        failed = isinstance(result, Failed)
        reason = result.error if isinstance(result, Failed) else result.reason
        typer.echo(f"litmus: {'failed' if failed else 'skipped'}: {reason}", err=True)
        raise typer.Exit(2 if failed else 3)
    for note in result.notes:
        typer.echo(note, err=True)
    write_atomically(result_filepath, f"{result.probability!r}\n")
