"""What a subverted process would try, each tried freely and then confined, in a child of its own.

`python -m tests.sandbox_attempts FOLDER` prints a JSON object: by kind and name what came of it
freely, confined, and confined with a network. The folder is the model's; what lies beside it is out
of bounds.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from litmus.scanning.confinement import Cell, find_sandbox
from litmus.scanning.system_calls import system_call

FOLDER = Path(sys.argv[1])
OUTSIDE = FOLDER.parent / "outside"
PARENT = os.getpid()
LIBC = ctypes.CDLL(None, use_errno=True)
PORT = 0
PTRACE_SEIZE = 0x4206
SANDBOX = find_sandbox()


def raw(number: int, *arguments: int) -> None:
    """A call by its number on x86_64, which is the same on aarch64 from 424 on."""
    system_call(number, *arguments)


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as end:
        end.connect(address)  # type: ignore[arg-type]
        end.send(b"x")


def write(path: Path) -> None:
    with path.open("w") as file:
        file.write("x")


def change_limits() -> None:
    resource.prlimit(PARENT, resource.RLIMIT_CORE, (0, 0))


def own_signals() -> None:
    """A pipe that is ready would signal its owner: any process of the same user."""
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, PARENT)


def trace() -> None:
    if LIBC.ptrace(PTRACE_SEIZE, PARENT, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")


def read_memory() -> None:
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    if LIBC.process_vm_readv(PARENT, vector, 1, vector, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def run_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def abort() -> None:
    os.abort()


DENIED: dict[str, Callable[[], object]] = {
    "read a file elsewhere": OUTSIDE.read_text,
    "read a file elsewhere by a link in the folder": (FOLDER / "link").read_text,
    "list a folder elsewhere": lambda: list(FOLDER.parent.iterdir()),
    "write a file elsewhere": lambda: write(FOLDER.parent / "new"),
    "write a file in the folder": lambda: write(FOLDER / "new"),
    "cut the model": lambda: os.truncate(FOLDER / "model", 1),
    "open the model to write": lambda: os.open(FOLDER / "model", os.O_WRONLY),
    "change the model's mode": lambda: (FOLDER / "model").chmod(0o600),
    "rename the model": lambda: (FOLDER / "model").rename(FOLDER / "model"),
    "make a folder": lambda: (FOLDER / f"made-{os.getpid()}").mkdir(),
    "connect over TCP": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT)),
    "send by UDP": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", PORT)),
    "connect to a Unix socket": lambda: connect(
        socket.AF_UNIX, socket.SOCK_STREAM, str(FOLDER.parent / "socket")
    ),
    "connect to an abstract Unix socket": lambda: connect(
        socket.AF_UNIX, socket.SOCK_STREAM, f"\0litmus-{PARENT}"
    ),
    "open the parent's memory": lambda: os.open(f"/proc/{PARENT}/mem", os.O_RDONLY),
    "list the parent's descriptors": lambda: list(Path(f"/proc/{PARENT}/fd").iterdir()),
    "read the parent's memory": read_memory,
    "trace the parent": trace,
    "signal the parent": lambda: os.kill(PARENT, signal.SIGWINCH),
    "signal the group": lambda: os.killpg(0, signal.SIGWINCH),
    "have the parent signalled": own_signals,
    "limit the parent": change_limits,
    "open a descriptor of the parent": lambda: raw(434, PARENT, 0),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": lambda: os.fork() or os._exit(0),
}
NEVER: dict[str, Callable[[], object]] = {
    # Some of them fail freely, too, without privileges or for their arguments.
    "io_uring_setup": lambda: raw(425, 0, 0),
    "open_tree": lambda: raw(428, 0, 0, 0),
    "move_mount": lambda: raw(429, 0, 0, 0, 0, 0),
    "pidfd_send_signal": lambda: raw(424, 0, 0, 0, 0),
    "pidfd_getfd": lambda: raw(438, 0, 0, 0),
    "process_madvise": lambda: raw(440, 0, 0, 0, 0, 0),
    "openat2": lambda: raw(437, 0, 0, 0, 0),
    "a call of a later kernel": lambda: raw(999),
}
ALLOWED: dict[str, Callable[[], object]] = {
    "read the model": (FOLDER / "model").read_text,
    "read a file beside it": (FOLDER / "beside").read_text,
    "run a thread": run_thread,
    "ask for the time": lambda: os.times(),
    "take memory": lambda: bytes(2**24),
    "draw random numbers": lambda: os.urandom(8),
}
ENDED: dict[str, Callable[[], object]] = {"abort": abort}
if os.uname().machine == "x86_64":
    ENDED["a call of the x32 ABI"] = lambda: raw(0x40000000 + 39)


def tried(attempt: Callable[[], object], *, confined: bool, network: bool = False) -> str:
    """What came of an attempt in a child: `done`, the kind of the error, or the signal."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if confined:
                Cell(SANDBOX, network=network).close([str(FOLDER)])
            attempt()
            os.write(writer, b"done")
        except OSError as fault:
            os.write(writer, type(fault).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 100).decode()
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said or (f"ended by {signal.Signals(-code).name}" if code < 0 else "done")


def main() -> None:
    """Try everything, in this order, and print what came of it."""
    global PORT
    listeners = [socket.create_server(("127.0.0.1", 0))]
    PORT = listeners[0].getsockname()[1]
    for address in (str(FOLDER.parent / "socket"), f"\0litmus-{PARENT}"):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(address)
        listeners[-1].listen()
    kinds = {"denied": DENIED, "never": NEVER, "allowed": ALLOWED, "ended": ENDED}
    ways: list[dict[str, bool]] = [
        {"confined": False},
        {"confined": True},
        {"confined": True, "network": True},
    ]
    outcome = {
        kind: {name: [tried(attempt, **way) for way in ways] for name, attempt in of.items()}
        for kind, of in kinds.items()
    }
    sys.stdout.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
