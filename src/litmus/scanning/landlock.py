"""Landlock: a process gives up files, TCP and signals that it does not need, for good.

Linux 5.13 and later, no privilege needed; see landlock(7) for what each version (ABI) knows.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from litmus.scanning.system_calls import system_call

__all__ = ["ADD_RULE", "RESTRICT_SELF", "abi", "restrict", "ruleset"]

# The same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_KNOWN: Final = 7
"""The latest ABI that this module was written for; a later one understands it, too."""

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP: Final = 1 << 0 | 1 << 1
"""To bind and to connect."""
_CONNECT_TCP: Final = 1 << 1
_SCOPES: Final = 1 << 0 | 1 << 1
"""Abstract Unix sockets and signals stay among the processes that are restricted together."""


def abi() -> int:
    """Return the version that the kernel has, or the latest known one; raises OSError for none."""
    return min(system_call(CREATE_RULESET, 0, 0, _VERSION), _KNOWN)


def ruleset(version: int, *, network: bool) -> int:
    """Return the descriptor of a ruleset that forbids all that this version can forbid.

    But for connecting over TCP, with `network`. Raises OSError.
    """
    # From `execute` to `make_sym`, then `refer` (2), `truncate` (3) and `ioctl_dev` (5).
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    words = [files]
    if version >= 4:
        words.append(_TCP & ~_CONNECT_TCP if network else _TCP)
    if version >= 6:
        words.append(_SCOPES)
    attributes = struct.pack(f"={len(words)}Q", *words)
    return system_call(CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)


def restrict(ruleset: int, readable: Sequence[str]) -> None:
    """Leave this thread, and those that it makes, the reading of these files and folders alone.

    What it has opened before stays open; the ruleset is used up. The process has to have given up
    new privileges, see `give_up_privileges`. Raises OSError.
    """
    try:
        for path in readable:
            _permit(ruleset, path)
        system_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _permit(ruleset: int, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        system_call(ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(descriptor)
