"""Linux's system calls for which Python's standard library has no function."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from typing import Any, Final

__all__ = ["give_up_privileges", "hide_memory", "system_call"]

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


def system_call(number: int, *arguments: Any) -> int:
    """Make a system call with integers, byte strings or ctypes pointers; raises OSError."""
    return _checked(_library().syscall(ctypes.c_long(number), *map(_word, arguments)))


def give_up_privileges() -> None:
    """Let no program that this process runs have more privileges; raises OSError."""
    _control(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Let no other process without privileges trace this one or open its memory; raises OSError.

    Nor the files that it has open. It holds for processes that are forked from it, too.
    """
    _control(_PR_SET_DUMPABLE, 0)


def _control(option: int, value: int) -> None:
    _checked(_library().prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))))


@cache
def _library() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _word(argument: Any) -> Any:
    """Integers are passed as long as a register: C's variadic functions don't convert them."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
