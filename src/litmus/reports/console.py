"""Tables for a terminal, as text."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from litmus.scanning.results import printable

__all__ = ["render_table"]


def render_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int = 200,
    colour: bool = False,
    styles: Mapping[int, Sequence[str]] | None = None,
    whole: Collection[int] = (),
) -> str:
    """Return a table as text at most `width` columns wide; cells are taken literally.

    `styles` are Rich's for each row of some columns, by the column's index, seen with `colour`.
    In the columns `whole` no word is broken.
    """
    table = Table(box=SIMPLE, header_style="bold", pad_edge=False)
    for c, name in enumerate(header):
        words = [word for row in rows for word in row[c].split()] if c in whole else []
        table.add_column(name, overflow="fold", min_width=max(map(len, words), default=None))
    for r, row in enumerate(rows):
        drawn = {column: each[r] for column, each in (styles or {}).items()}
        # As Text: a file called [/x].onnx is a name, and not markup.
        table.add_row(*(Text(printable(cell), drawn.get(c, "")) for c, cell in enumerate(row)))
    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=colour, no_color=not colour, highlight=False
    )
    console.print(table)
    lines = text.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"
