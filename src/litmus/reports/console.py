"""Tables for a terminal, as text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from litmus.scanning.results import printable

__all__ = ["render_table"]


def render_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 200, colour: bool = False
) -> str:
    """Return a table as text at most `width` columns wide; cells are taken literally."""
    table = Table(box=SIMPLE, header_style="bold", pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As Text: a file called [/x].onnx is a name, and not markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=colour, no_color=not colour, highlight=False
    )
    console.print(table)
    lines = text.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"
