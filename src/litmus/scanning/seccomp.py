"""Seccomp: the kernel refuses a process all system calls but those that scoring a model needs.

A list of what is allowed, so that calls of later kernels are refused, too. What is refused fails
with EPERM; what comes by another architecture's door ends the process. See seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from litmus.scanning.landlock import ADD_RULE, RESTRICT_SELF
from litmus.scanning.system_calls import system_call

__all__ = ["compiled", "restrict"]

# Offsets in `struct seccomp_data`: number, architecture, then six arguments of 8 bytes, of which
# the kernel takes the lower 4 of those below.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_SET_FILTER, _ALL_THREADS = 1, 1

_O_WRITING: Final = 0o3 | 0o100 | 0o1000
"""O_ACCMODE, O_CREAT, O_TRUNC."""
_CLONE_THREAD: Final = 0x10000
_F_ORDINARY: Final = (0, 1, 2, 3, 4, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: none that signals an owner."""
_TCGETS, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x5421, 0x5450, 0x5451
_PR_NAMES: Final = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: a thread's and a mapping's name."""
_AF_INTERNET: Final = (2, 10)
"""AF_INET and AF_INET6."""
_X32: Final = 0x40000000
_OWN_PID: Final = 0x7FFFFFF1
"""Stands for the process's own number; no process can have it."""
_NONE: Final = -1

Numbers = Mapping[str, tuple[int, int]]
"""A call's numbers on x86_64 and on aarch64, -1 where it has none."""

_PLAIN: Final[Numbers] = {
    # Files that are open, or that Landlock lets it open; and what a path leads to.
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "write": (1, 64), "writev": (20, 66),
    "close": (3, 57), "lseek": (8, 62), "fadvise64": (221, 223), "getdents64": (217, 61),
    "stat": (4, -1), "lstat": (6, -1), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, -1), "readlinkat": (267, 78), "getcwd": (79, 17), "statfs": (137, 43),
    "fstatfs": (138, 44), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24),
    "poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72),
    # Memory.
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233), "brk": (12, 214), "mincore": (27, 232), "membarrier": (324, 283),
    # Threads and signals of its own, time, and what it is.
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "rseq": (334, 293), "set_tid_address": (218, 96), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "getcpu": (309, 168),
    "sched_getscheduler": (145, 120), "setitimer": (38, 103), "getitimer": (36, 102),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, -1),
    "times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163), "setrlimit": (160, 164),
    "sysinfo": (99, 179), "uname": (63, 160), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "exit": (60, 93), "exit_group": (231, 94), "getrandom": (318, 278),
    "arch_prctl": (158, -1),
    # It can only give up more.
    "landlock_add_rule": (ADD_RULE, ADD_RULE), "landlock_restrict_self": (RESTRICT_SELF,) * 2,
}  # fmt: skip
_CHECKED: Final[Numbers] = {
    "open": (2, -1), "openat": (257, 56), "ioctl": (16, 29), "fcntl": (72, 25),
    "prctl": (157, 167), "prlimit64": (302, 261), "clone": (56, 220), "clone3": (435, 435),
    "tgkill": (234, 131),
}  # fmt: skip
_INTERNET: Final[Numbers] = {
    "connect": (42, 203), "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "sendmmsg": (307, 269), "getsockname": (51, 204),
    "getpeername": (52, 205), "setsockopt": (54, 208), "getsockopt": (55, 209),
    "shutdown": (48, 210),
}  # fmt: skip
_SOCKET: Final = (41, 198)


class _Machine(NamedTuple):
    column: int
    audit: int
    """How the kernel names the architecture, AUDIT_ARCH_X86_64 say."""
    seccomp: int
    """The number of the call that loads a filter."""


_MACHINES: Final = {
    "x86_64": _Machine(0, 0xC000003E, 317),
    "aarch64": _Machine(1, 0xC00000B7, 277),
}


class _Step(NamedTuple):
    """A `struct sock_filter`; `then` and `otherwise` are how many steps a test leaves out."""

    code: int
    value: int
    then: int = 0
    otherwise: int = 0


Program = list[_Step]
_STEP: Final = struct.Struct("@HBBI")
_REFUSE: Final = [_Step(_RETURN, _ERROR | errno.EPERM)]
_PERMIT: Final = [_Step(_RETURN, _ALLOW)]
_END: Final = [_Step(_RETURN, _KILL)]
_UNKNOWN: Final = [_Step(_RETURN, _ERROR | errno.ENOSYS)]
"""Has the C library make threads by the older call, whose flags can be read here."""


def restrict(*, network: bool) -> None:
    """Refuse this process, all of its threads, what scoring a model does not need, for good.

    With `network` it may talk to hosts over IPv4 and IPv6. It may still take more from itself by
    Landlock. The process has to have given up new privileges, see `give_up_privileges`. Raises
    OSError where the kernel has no filters, or where this kind of processor is not known.
    """
    own_pid = struct.pack("@I", os.getpid())
    program = compiled(network=network).replace(struct.pack("@I", _OWN_PID), own_pid)
    head = struct.pack("@HP", len(program) // _STEP.size, _address(program))
    number = _MACHINES[platform.machine()].seccomp
    # Otherwise the number of the thread that could not be restricted.
    if system_call(number, _SET_FILTER, _ALL_THREADS, ctypes.c_char_p(head)):
        raise OSError(errno.EBUSY, "a thread can't be restricted")


def _address(data: bytes) -> int:
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    return address


@cache
def compiled(*, network: bool) -> bytes:
    """Return the program as the kernel reads it, with `_OWN_PID` for the process's own number.

    Kept, so that a process may make it for those that it forks. Raises OSError as `restrict` does.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine or 'this machine'}")
    column, audit, _ = _MACHINES[machine]
    tables = [_PLAIN, _INTERNET] if network else [_PLAIN]
    calls = {n[column]: _PERMIT for table in tables for n in table.values()}
    calls |= {numbers[column]: _check(name) for name, numbers in _CHECKED.items()}
    if network:
        calls[_SOCKET[column]] = _one_of(0, *_AF_INTERNET)
    calls.pop(_NONE, None)
    starts = {0: _REFUSE, _X32: _END} if machine == "x86_64" else {0: _REFUSE}
    for number, program in sorted(calls.items()):
        starts[number] = program
        starts.setdefault(number + 1, _REFUSE)
    steps = [
        _Step(_LOAD, _ARCHITECTURE),
        _Step(_IF_EQUAL, audit, 1, 0),
        *_END,
        _Step(_LOAD, _NUMBER),
        *_search(_merged(starts)),
    ]
    return b"".join(_STEP.pack(s.code, s.then, s.otherwise, s.value) for s in steps)


def _check(name: str) -> Program:
    """Return what decides, by its arguments, whether a call is allowed."""
    match name:
        case "open":
            return _no_bit(1, _O_WRITING)
        case "openat":
            return _no_bit(2, _O_WRITING)
        case "ioctl":
            return _one_of(1, _TCGETS, _FIONBIO, _FIOCLEX, _FIONCLEX)
        case "fcntl":
            return _one_of(1, *_F_ORDINARY)
        case "prctl":
            return _one_of(0, *_PR_NAMES)
        case "prlimit64":
            return _one_of(0, 0)
        case "clone":
            return [_argument(0), _Step(_IF_ANY_BIT, _CLONE_THREAD, 1, 0), *_REFUSE, *_PERMIT]
        case "tgkill":  # how a process aborts
            return _one_of(0, _OWN_PID)
        case _:
            return _UNKNOWN


def _argument(index: int) -> _Step:
    return _Step(_LOAD, _ARGUMENTS + 8 * index)


def _one_of(index: int, *values: int) -> Program:
    tests = [_Step(_IF_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_argument(index), *tests, *_REFUSE, *_PERMIT]


def _no_bit(index: int, bits: int) -> Program:
    return [_argument(index), _Step(_IF_ANY_BIT, bits, 0, 1), *_REFUSE, *_PERMIT]


def _merged(starts: Mapping[int, Program]) -> list[tuple[int, Program]]:
    """Return what holds from which number on, each where it is not what held before."""
    merged: list[tuple[int, Program]] = []
    for number, program in sorted(starts.items()):
        if not merged or merged[-1][1] is not program:
            merged.append((number, program))
    return merged


def _search(starts: list[tuple[int, Program]]) -> Program:
    """Return a binary search: the kernel runs the program for every call, and once to learn it."""
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    return [_Step(_IF_AT_LEAST, starts[middle][0], len(below), 0), *below, *above]
