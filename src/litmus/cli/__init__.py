"""The command `litmus`: one thin function a verb, which parses, calls, renders and exits."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import typer

from litmus.cli import (
    comparing,
    detecting,
    evading,
    evaluating,
    pipelines,
    reproducing,
    zoos,
)
from litmus.cli import demo as demonstrating
from litmus.errors import LitmusError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="litmus",
    help="Tell from the model file alone whether an image classifier carries a backdoor.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("scan")(detecting.scan)
app.command("detectors")(detecting.detectors)
app.add_typer(zoos.app, name="zoo")
app.command("fit")(detecting.fit)
app.command("calibrate")(detecting.calibrate)
app.command("evaluate")(evaluating.evaluate)
app.command("compare")(comparing.compare)
app.command("evade")(evading.evade)
app.command("export")(zoos.export)
app.command("figures")(zoos.figures)
app.command("reproduce")(reproducing.reproduce)
app.command("demo")(demonstrating.demo)
app.command("schema")(pipelines.schema)
app.command("trojai")(pipelines.trojai)

# What a scan does without, as its modules are called.
_TRAIN_EXTRA: Final = frozenset(
    {"PIL", "datasets", "matplotlib", "onnxscript", "platformdirs", "pydantic", "scipy", "sklearn",
     "torch"}
)  # fmt: skip
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 2, 4, 130

# Typer brings a click of its own from some version on; this is its UsageError either way.
_ClickUsageError: Final[Any] = typer.BadParameter.__base__


def main() -> None:
    """Run the command line; exit codes: 1 suspicious, 2 error, 3 nothing scannable, 4 usage."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        # Verbs have stopped their processes by now; taking torch down would take another second.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    except _ClickUsageError as fault:
        fault.show()
        code = EXIT_USAGE
    except LitmusError as fault:
        print(f"litmus: {fault}", file=sys.stderr)  # noqa: T201
        code = EXIT_USAGE if isinstance(fault, UsageError) else EXIT_ERROR
    except ModuleNotFoundError as fault:
        if (fault.name or "").split(".")[0] not in _TRAIN_EXTRA:
            raise
        hint = "pip install 'litmus-patterns[train]'"
        print(f"litmus: this needs {fault.name}: {hint}", file=sys.stderr)  # noqa: T201
        code = EXIT_ERROR
    except BrokenPipeError:
        code = 0  # the reader (head, less) has seen enough
    sys.exit(code)
