"""How a benchmark says what it measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import litmus
from litmus.artifacts import machine_facts, write_atomically
from litmus.cli.options import given_command

__all__ = ["report"]


def report(figures: Mapping[str, object], output: Path | None) -> None:
    """Print figures with command, versions, machine and load; write them to a file if named."""
    content = {
        "command": given_command(f"python -m benchmarks.{Path(sys.argv[0]).stem}"),
        "litmus_version": litmus.__version__,
        "machine": machine_facts(),
        "load_average": os.getloadavg()[0],
        **figures,
    }
    text = json.dumps(content, indent=1) + "\n"
    print(text, end="")
    if output is not None:
        write_atomically(output, text)
