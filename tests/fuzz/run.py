"""Running a target on many inputs, each a function of the target's name, a seed and a number."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tests.fuzz.targets import TARGETS

__all__ = ["Outcome", "Report", "fuzz", "read_one"]

SECONDS: Final = 20
"""For one input; far more than any takes."""
_BYTES: Final = 2**30
"""What inputs may take on top of what is there."""


class Outcome(NamedTuple):
    """What became of an input, by its number; `fault` tells what went wrong."""

    number: int
    refused: bool
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a target's inputs: how many were read, how many refused, and the faults."""

    outcomes: Sequence[Outcome]
    seconds: float

    @property
    def faults(self) -> list[Outcome]:
        """The inputs that went wrong."""
        return [outcome for outcome in self.outcomes if outcome.fault]

    @property
    def refused(self) -> int:
        """How many inputs ended in an error that was meant."""
        return sum(outcome.refused for outcome in self.outcomes)


def read_one(target: str, seed: int, number: int, folder: Path) -> Outcome:
    """Read one input, which is a function of the target, the seed and the number."""
    fuzzed, fault = TARGETS[target], ""
    signal.alarm(SECONDS)
    try:
        fuzzed.read(Random(f"{target}/{seed}/{number}"), folder)
    except fuzzed.allowed:
        return Outcome(number, refused=True)
    except MemoryError:
        fault = "" if fuzzed.in_child else traceback.format_exc()
    except Exception:
        fault = traceback.format_exc()
    finally:
        signal.alarm(0)
    return Outcome(number, refused=False, fault=fault)


def fuzz(target: str, seed: int, inputs: int) -> Report:
    """Read so many inputs in a process of its own.

    An input that ends the process is a fault, and the rest go on.
    """
    started = time.monotonic()
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("fork")
    while len(outcomes) < inputs:
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(len(outcomes), inputs)
        process = context.Process(target=_serve, args=(theirs, target, seed, numbers))
        process.start()
        theirs.close()
        try:
            while len(outcomes) < inputs:
                outcomes.append(ours.recv())
            process.join()
        except EOFError:
            process.join()
            fault = f"the process ended with code {process.exitcode}"
            outcomes.append(Outcome(len(outcomes), refused=False, fault=fault))
    return Report(outcomes=outcomes, seconds=time.monotonic() - started)


def _serve(replies: Any, target: str, seed: int, numbers: range) -> None:
    # Without a handler: what hangs in native code would never come back to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _BYTES, held + _BYTES))
    TARGETS[target].prepare()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            replies.send(read_one(target, seed, number, Path(folder)))
