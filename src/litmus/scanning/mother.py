"""The process that scores models: a warmed mother that forks a fresh child for every file.

The mother reads JSON lines: first the set-up, then one request a file. It answers each with one
line. Only its child ever parses a model, under limits of memory and time; what the child says
crosses a pipe as text that the mother does not interpret, so that a subverted child can speak for
no other file. The mother runs one thread, which is what makes forking sound.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from litmus.artifacts import sha256_of
from litmus.detectors import Detector, load_detector
from litmus.detectors.effort import Effort
from litmus.errors import LitmusError, ModelError, RecipeError
from litmus.formats.onnx_file import MAX_FILE_BYTES
from litmus.formats.preprocessing import sidecar_of
from litmus.scanning.belongings import bounds, keep_only
from litmus.scanning.child import score_file
from litmus.scanning.confinement import (
    Cell,
    code_folders,
    find_sandbox,
    network_files,
    readable_for,
)
from litmus.scanning.results import Sandbox
from litmus.scanning.system_calls import hide_memory
from litmus.scanning.warmup import (
    import_client,
    import_gradients,
    import_onnx,
    import_torch,
    made_ready,
    rehearsal,
    rehearse,
)

__all__ = ["MAX_REPLY_BYTES", "main"]

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
"""What a child may say: 100 patterns through 1,000 classes take 2 MB."""

_LOAD: Final = Path("/proc/loadavg")


@dataclass(frozen=True, kw_only=True)
class _Office:
    """What every file meets: the detectors by name, limits as numbers and as the system has them.

    The detectors are loaded once, here; a child can use no other.
    """

    detectors: Mapping[str, Detector]
    effort: Effort
    wall_seconds: float
    memory_mib: float
    bounds: list[tuple[int, tuple[int, int]]]
    rehearsal: int
    """Descriptor of a file with a small model."""
    sandbox: Sandbox
    network: bool
    """Whether children ask servers and read no file."""
    beside: tuple[str, ...]
    """What a child may read beside its file."""


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A process that waits for its one file, and our ends of the pipes to it."""

    pid: int
    requests: int
    replies: int


def main() -> None:
    """Serve one scanner until it closes our standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scanner decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the replies
    with contextlib.suppress(OSError):
        hide_memory()
    sandbox = find_sandbox()
    import_onnx()
    setup = json.loads(sys.stdin.readline() or "null")
    if setup is None:
        return
    try:
        office = _open_office(setup, sandbox)
    except LitmusError as fault:
        kind = "architecture" if isinstance(fault, RecipeError) else "detector"
        _answer(replies, {"setup_error": str(fault), "kind": kind})
        return
    # Children write to no page of what is here already, so that forking stays cheap.
    gc.collect()
    gc.freeze()
    child, leaving = _fork_child(office), None
    for line in sys.stdin:
        request, started = json.loads(line), time.perf_counter()
        try:
            digest, granted = _granted(office, request)
        except (OSError, ModelError) as fault:
            _answer(replies, {"failed": getattr(fault, "strerror", None) or str(fault)})
            continue
        _tell(child, {**request, "readable": granted})
        # What gradients take is long beside a rehearsal, and would be taken in it, too.
        ahead = office.effort == "quick" and _a_core_is_free()
        following = _fork_child(office, warm_up=True) if ahead else None
        if leaving is not None:
            # Not sooner: giving its memory back takes as long as a small model's answer.
            _end(leaving)
        outcome = _hear(child, office.wall_seconds)
        seconds = time.perf_counter() - started
        told = {"sha256": digest, "seconds": seconds, "sandbox": asdict(sandbox)}
        _answer(replies, {**told, **outcome})
        leaving = child if "reply" in outcome else None
        child = following or _fork_child(office)


def _answer(replies: TextIO, message: Mapping[str, object]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        sys.exit(1)


def _open_office(setup: Mapping[str, Any], sandbox: Sandbox) -> _Office:
    detectors = {name: load_detector(path) for name, path in setup["detectors"].items()}
    if setup["needs_torch"]:
        import_torch(setup["architecture"])
    if setup["network"]:
        import_client()
    limits = setup["limits"]
    small_model = _rehearse_all(detectors)
    effort: Effort = setup["effort"]
    if effort != "quick" and detectors:
        import_gradients(small_model, needs_torch=setup["needs_torch"])
    detectors = made_ready(detectors, effort, setup["images"], limits["wall_seconds"])
    return _Office(
        detectors=detectors,
        effort=effort,
        bounds=bounds(**limits),
        rehearsal=small_model,
        sandbox=sandbox,
        network=setup["network"],
        # PyTorch imports as it goes, and code of the user's own is imported in children.
        beside=(
            *(code_folders() if setup["needs_torch"] else ()),
            *(network_files() if setup["network"] else ()),
        ),
        **limits,
    )


def _rehearse_all(detectors: Mapping[str, Detector]) -> int:
    """Rehearse with every shape, and return a small model of the smallest one for children.

    Those must not take longer over it than files take.
    """
    specs = dict.fromkeys(detector.input_spec for detector in detectors.values())
    shapes = sorted(specs, key=lambda spec: math.prod(spec.image_shape))
    small_models = [rehearsal(shape) for shape in shapes]
    for small_model in small_models:
        rehearse(small_model, detectors)
    for small_model in small_models[1:]:
        os.close(small_model)
    return small_models[0] if small_models else os.open(os.devnull, os.O_RDONLY)


def _granted(office: _Office, request: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return a file's digest and what its process may read; raises OSError or ModelError."""
    if office.network:
        return None, office.beside
    path = Path(request["path"])
    digest = _digest(path)
    return digest, readable_for(path, request["format"], office.beside)


def _digest(path: Path) -> str:
    """Return a file's SHA-256: taken here, since a child could claim that of another file."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        expected = f"at most {MAX_FILE_BYTES} bytes"
        raise ModelError("the file is too large", expected=expected, got=size)
    if sidecar_of(path).exists():
        import tomllib  # noqa: F401 - once for all later children
    return sha256_of(path)


def _fork_child(office: _Office, *, warm_up: bool = False) -> _Child:
    """Return a child that waits for its file, having rehearsed where a core has nothing to do.

    The pages of memory that it will write to are its own then: most of what a fork costs.
    """
    request_reader, request_writer = os.pipe()
    reply_reader, reply_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_child(office, request_reader, reply_writer, warm_up=warm_up)
    os.close(request_reader)
    os.close(reply_writer)
    return _Child(pid=pid, requests=request_writer, replies=reply_reader)


def _a_core_is_free() -> bool:
    """Whether the next child may be forked while this one works, which takes about as long.

    Where it would compete with it, both are slower than one after the other. Of the tasks that
    want to run, this process is one that will sleep.
    """
    if not _LOAD.exists():
        return False
    running = int(_LOAD.read_text().split()[3].split("/")[0])
    return running <= len(os.sched_getaffinity(0)) + 1


def _tell(child: _Child, request: Mapping[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(child.requests, "w") as requests:
        requests.write(json.dumps(request))


def _hear(child: _Child, seconds: float) -> dict[str, object]:
    """Return what a child says until it closes its pipe, for which it has so many seconds.

    One that says nothing complete is ended, and how it ended is the answer.
    """
    deadline = time.monotonic() + seconds
    said, cause = bytearray(), None
    poll = select.poll()
    poll.register(child.replies, select.POLLIN)
    poll.register(0, 0)  # only tells that the scanner is gone
    while cause is None:
        events = dict(poll.poll(max(0, deadline - time.monotonic()) * 1000))
        if 0 in events:
            os.kill(child.pid, signal.SIGKILL)
            sys.exit(1)
        if not events:
            cause = f"took longer than the limit of {seconds:g} seconds"
            break
        piece = os.read(child.replies, 65536)
        if not piece:
            break
        said += piece
        if len(said) > MAX_REPLY_BYTES:
            cause = f"the reply is longer than {MAX_REPLY_BYTES} bytes"
    os.close(child.replies)
    if cause is None and said.endswith(b"\n"):
        return {"reply": said.decode("ascii", "replace")}
    # Where the pipe was closed without an answer, the process is about to end by itself.
    status = _end(child, grace=0.0 if cause else 1.0)
    return {"failed": cause or _cause_of_death(status, seconds)}


def _end(child: _Child, grace: float = 0.0) -> int:
    """Return how a child ended, which it is made to do after `grace` seconds."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        done, status = os.waitpid(child.pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def _cause_of_death(status: int, seconds: float) -> str:
    if status == -signal.SIGXCPU:
        return f"took more processor time than the limit of {seconds:g} seconds"
    if status < 0:
        name = signal.Signals(-status).name
        memory = status in (-signal.SIGKILL, -signal.SIGABRT)
        guess = ", perhaps for want of memory" if memory else ""
        return f"crashed: the process that read the file was ended by {name}{guess}"
    return f"crashed: the process that read the file ended with code {status} and without an answer"


def _become_child(office: _Office, requests: int, replies: int, *, warm_up: bool) -> NoReturn:
    """Wait for one file, score it under limits, say so, and end without the mother's clean-up."""
    code = 1
    try:
        gc.disable()
        keep_only(requests, replies, office.rehearsal)
        if warm_up:
            rehearse(office.rehearsal, office.detectors)
        os.close(office.rehearsal)
        for kind, pair in office.bounds:
            resource.setrlimit(kind, pair)
        outcome = _enclosed(office, requests)
        if outcome is not None:  # otherwise there are no more files
            with os.fdopen(replies, "w") as answer:
                answer.write(json.dumps(outcome) + "\n")
        code = 0
    finally:
        os._exit(code)


def _enclosed(office: _Office, requests: int) -> dict[str, object] | None:
    """Give up what scoring does not need, wait for a file, score it; None where none comes.

    Where the former fails, nothing is parsed.
    """
    cell: Cell | OSError
    try:
        cell = Cell(office.sandbox, network=office.network)
    except OSError as fault:
        cell = fault
    with os.fdopen(requests) as file:
        line = file.read()
    if not line:
        return None
    request = json.loads(line)
    if sidecar_of(Path(request["path"])).exists():
        import tomllib  # noqa: F401 - out of reach from here on
    try:
        if isinstance(cell, OSError):
            raise cell
        cell.close(request["readable"])
    except OSError as fault:
        return {"status": "failed", "error": f"its process can't be confined: {fault.strerror}"}
    return score_file(request, office.detectors, memory_mib=office.memory_mib)


if __name__ == "__main__":
    main()
