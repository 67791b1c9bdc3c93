"""What a forked process has: the descriptors that it keeps, and how much it may take."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path
from typing import Final

__all__ = ["bounds", "keep_only"]

_MIB: Final = 1024 * 1024
_MAX_DESCRIPTORS: Final = 1 << 20
_STATUS: Final = Path("/proc/self/statm")


def keep_only(*kept: int) -> None:
    """Close every file but these descriptors: the scanner's pipes, and those of other children."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, _MAX_DESCRIPTORS)


def bounds(wall_seconds: float, memory_mib: float) -> list[tuple[int, tuple[int, int]]]:
    """Resource limits for a child; memory is over and above what the mother holds already."""
    cpu = math.ceil(wall_seconds)
    bounds = [(resource.RLIMIT_CPU, (cpu, cpu + 1)), (resource.RLIMIT_CORE, (0, 0))]
    if _STATUS.exists():  # elsewhere nobody tells how much that is
        held = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
        memory = held + int(memory_mib * _MIB)
        bounds.append((resource.RLIMIT_AS, (memory, memory)))
    return [(kind, _at_most(resource.getrlimit(kind)[1], pair)) for kind, pair in bounds]


def _at_most(present: int, pair: tuple[int, int]) -> tuple[int, int]:
    """A process may lower its limits, and not raise them."""
    if present == resource.RLIM_INFINITY:
        return pair
    return min(pair[0], present), min(pair[1], present)
