"""What a pickle would import and call, read from its opcodes; nothing of it is ever run.

The pickle may be hostile; call it in a child process only.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any, Final

from litmus.errors import ModelError

__all__ = ["MAX_OPCODES", "MAX_PICKLE_BYTES", "PickleContent", "read_pickle"]

MAX_PICKLE_BYTES: Final = 64 * 1024 * 1024
MAX_OPCODES: Final = 500_000
"""A state dict of 10,000 tensors takes some 400,000."""

_PLAIN: Final = frozenset(
    {"collections", "torch", "torch._utils", "torch._tensor", "torch.storage",
     "torch.nn.parameter", "torch.serialization"}
)  # fmt: skip
"""Modules that the pickle of a state dict names."""
_PLAIN_NAMES: Final = frozenset(
    {"_codecs encode", "builtins set", "__builtin__ set", "builtins complex", "builtins bytearray"}
)
_SYSTEM: Final = frozenset(
    {"asyncio", "bdb", "code", "commands", "ctypes", "http", "importlib", "marshal",
     "multiprocessing", "nt", "os", "pdb", "pickle", "pip", "posix", "pty", "runpy", "shutil",
     "signal", "smtplib", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "urllib",
     "webbrowser", "_pickle"}
)  # fmt: skip
"""What no network is made of."""
_SYSTEM_NAMES: Final = frozenset(
    f"{module} {name}"
    for module in ("builtins", "__builtin__")
    for name in ("__import__", "breakpoint", "compile", "eval", "exec", "execfile", "open")
)
_STRINGS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
     "SHORT_BINSTRING"}
)  # fmt: skip
_PUTS: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
_SILENT: Final = frozenset({"PROTO", "FRAME"})


@dataclass(frozen=True, kw_only=True)
class PickleContent:
    """What a pickle names, as `module.name`, in order of appearance.

    `foreign` are those that no state dict has; `system` those that reach for the system: to open
    such a file is to run what somebody put there.
    """

    foreign: tuple[str, ...]
    system: tuple[str, ...]


def read_pickle(data: bytes, where: object, *, streams: int = 1) -> PickleContent:
    """Return what so many pickles, one behind the other, name.

    Raises ModelError where they are damaged or too long.
    """
    names: dict[str, None] = {}
    file, left = io.BytesIO(data), MAX_OPCODES
    try:
        for _ in range(streams):
            left -= _read_one(file, names, left, where)
    except ModelError:
        raise
    except Exception as fault:  # pickletools raises whatever its decoders do
        raise ModelError("a damaged pickle", got=str(fault)[:200], where=where) from fault
    return PickleContent(
        foreign=tuple(_dotted(name) for name in names if not _is_plain(name)),
        system=tuple(_dotted(name) for name in names if _is_system(name)),
    )


def _read_one(file: io.BytesIO, names: dict[str, None], left: int, where: object) -> int:
    """Add the names of one pickle, and return the number of its opcodes."""
    pushed: list[str | None] = []  # the last two, None where that is no string
    memo: dict[int, str | None] = {}
    count = 0
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        count += 1
        if count > left:
            raise ModelError(
                "a pickle too long for weights", expected=f"{MAX_OPCODES} opcodes", where=where
            )
        if opcode.name in ("GLOBAL", "INST"):
            names[str(argument)] = None
        elif opcode.name == "STACK_GLOBAL":
            names[" ".join(part or "?" for part in [None, None, *pushed][-2:])] = None
        elif opcode.name.startswith("EXT"):
            names[f"copyreg extension-{argument}"] = None
        if opcode.name in _PUTS:
            place = len(memo) if opcode.name == "MEMOIZE" else int(argument)
            memo[place] = pushed[-1] if pushed else None
        elif opcode.name not in _SILENT:
            string = argument if opcode.name in _STRINGS else None
            pushed = [*pushed[-1:], memo.get(argument) if opcode.name in _GETS else string]
    return count


def _is_plain(name: str) -> bool:
    return name.split(" ")[0] in _PLAIN or name in _PLAIN_NAMES


def _is_system(name: str) -> bool:
    return name.split(" ")[0].split(".")[0] in _SYSTEM or name in _SYSTEM_NAMES


def _dotted(name: str) -> str:
    return name.replace(" ", ".")[:100]
