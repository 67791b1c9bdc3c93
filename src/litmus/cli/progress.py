"""A progress bar with the time that is left, on a terminal; a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

__all__ = ["Bar", "bar"]


class Bar(Protocol):
    """What a verb reports its progress to."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` is done."""

    def say(self, line: str) -> None:
        """Print a line without garbling the bar."""


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Show a bar on standard error until the context ends."""
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        speed_estimate_period=600,  # models take seconds each
    ) as progress:
        yield _Rich(progress, title)


class _Rich:
    def __init__(self, progress: object, title: str) -> None:
        from rich.progress import Progress

        assert isinstance(progress, Progress)
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


class _Lines:
    """For logs: a line every ten seconds, and the last one."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        first = self._first = done if self._first is None else self._first
        if now - self._last < 10 and done < total:
            return
        self._last = now
        rate = (done - first) / max(now - self._start, 1e-9)
        left = f", ETA {(total - done) / rate:.0f} s" if rate and done < total else ""
        self.say(f"{self._title}: {done} of {total}{left} {note}".rstrip())

    def say(self, line: str) -> None:
        typer.echo(line, err=True)
