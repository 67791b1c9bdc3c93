"""The process that scores models: a warmed mother that forks a fresh child for every file.

The mother reads JSON lines: first the set-up, then one request a file. It answers each with one
line. Only its child ever parses a model, under limits of memory and time; what the child says
crosses a pipe as text that the mother does not interpret, so that a subverted child can speak for
no other file. The mother runs one thread, which is what makes forking sound.
"""

from __future__ import annotations

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
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from litmus.artifacts import sha256_of
from litmus.detectors import Detector, load_detector
from litmus.errors import LitmusError, MissingExtraError, UnsupportedModelError
from litmus.formats import FORMATS
from litmus.formats.onnx_file import MAX_FILE_BYTES, create_session
from litmus.formats.preprocessing import Preprocessing, sidecar_of

__all__ = ["MAX_REPLY_BYTES", "main"]

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
"""What a child may say: 100 patterns through 1,000 classes take 2 MB."""

_MIB: Final = 1024 * 1024
_STATUS: Final = Path("/proc/self/statm")


def main() -> None:
    """Serve one scanner until it closes our standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scanner decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the replies
    _warm_onnx()
    setup = json.loads(sys.stdin.readline() or "null")
    if setup is None:
        return
    try:
        detector = load_detector(setup["detector"])
        if setup["needs_torch"]:
            _warm_torch()
    except LitmusError as fault:
        _answer(replies, {"setup_error": str(fault)})
        return
    # Children write to no page of what is here already, so that forking stays cheap.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        _answer(replies, _serve(json.loads(line), detector, setup["limits"], replies))


def _answer(replies: TextIO, message: Mapping[str, object]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        sys.exit(1)


def _warm_onnx() -> None:
    """Import what reads and runs ONNX, and run it once."""
    import numpy as np
    from onnx import TensorProto, helper

    value = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y")
    }
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "warm", [value["x"]], [value["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = create_session(model.SerializeToString(), "warming")
    session.run(None, {"x": np.zeros((1, 1), np.float32)})


def _warm_torch() -> None:
    """Import what builds zoo models; without PyTorch each file will say that it is missing."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    import litmus.architectures
    import litmus.schema  # noqa: F401


def _serve(
    request: Mapping[str, Any], detector: Detector, limits: Mapping[str, float], replies: TextIO
) -> dict[str, object]:
    """Fork a child for one file and return how it ended."""
    path, started = Path(request["path"]), time.perf_counter()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {"failed": f"the file is too large (expected at most {MAX_FILE_BYTES} bytes)"}
        # Taken here and not by the child, which could claim the digest of another file.
        digest = sha256_of(path)
    except OSError as fault:
        return {"failed": f"can't be read: {fault.strerror}"}
    if sidecar_of(path).exists():
        import tomllib  # noqa: F401 - once for all children
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_child(request, detector, limits, writer, replies)
    os.close(writer)
    outcome = _collect(child, reader, limits["seconds"])
    seconds = time.perf_counter() - started
    return {"sha256": digest, "seconds": seconds, **outcome}


def _collect(child: int, reader: int, seconds: float) -> dict[str, object]:
    """Read what a child says until it ends, and no longer than `seconds`; then reap it."""
    deadline = time.monotonic() + seconds
    said, cause = bytearray(), None
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(0, 0)  # only tells that the scanner is gone
    while True:
        events = dict(poll.poll(max(0, deadline - time.monotonic()) * 1000))
        if 0 in events:
            os.kill(child, signal.SIGKILL)
            sys.exit(1)
        if not events:
            cause = f"took longer than the limit of {seconds:g} seconds"
            break
        piece = os.read(reader, 65536)
        if not piece:
            break
        said += piece
        if len(said) > MAX_REPLY_BYTES:
            cause = f"the reply is longer than {MAX_REPLY_BYTES} bytes"
            break
    os.close(reader)
    complete = cause is None and said.endswith(b"\n")
    # Where a child closed the pipe without an answer, the way it ends is the answer.
    status = _reap(child, grace=0 if complete or cause else 1.0)
    if not complete:
        return {"failed": cause or _cause_of_death(status, seconds)}
    return {"reply": said.decode("ascii", "replace")}


def _reap(child: int, grace: float) -> int:
    """Return how a child ended, which it is made to do after `grace` seconds."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _cause_of_death(status: int, seconds: float) -> str:
    if status == -signal.SIGXCPU:
        return f"took more processor time than the limit of {seconds:g} seconds"
    if status < 0:
        name = signal.Signals(-status).name
        memory = status in (-signal.SIGKILL, -signal.SIGABRT)
        guess = ", perhaps for want of memory" if memory else ""
        return f"crashed: the process that read the file was ended by {name}{guess}"
    return f"crashed: the process that read the file ended with code {status} and without an answer"


def _become_child(
    request: Mapping[str, Any],
    detector: Detector,
    limits: Mapping[str, float],
    writer: int,
    replies: TextIO,
) -> NoReturn:
    """Score one file under limits, say so, and end without any of the mother's clean-up."""
    code = 1
    try:
        gc.disable()
        os.close(replies.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        _limit(limits)
        reply = json.dumps(_outcome(request, detector, limits)) + "\n"
        view = memoryview(reply.encode("ascii"))
        while view:
            view = view[os.write(writer, view) :]
        code = 0
    finally:
        os._exit(code)


def _limit(limits: Mapping[str, float]) -> None:
    """Bound what this process may take, over and above what the mother holds already."""
    seconds = math.ceil(limits["seconds"])
    bounds = {resource.RLIMIT_CPU: (seconds, seconds + 1), resource.RLIMIT_CORE: (0, 0)}
    if _STATUS.exists():  # elsewhere nobody tells how much that is
        held = int(_STATUS.read_text().split()[0]) * resource.getpagesize()
        memory = held + int(limits["memory_mib"] * _MIB)
        bounds[resource.RLIMIT_AS] = (memory, memory)
    for kind, (soft, hard) in bounds.items():
        present = resource.getrlimit(kind)[1]
        if present != resource.RLIM_INFINITY:
            soft, hard = min(soft, present), min(hard, present)
        resource.setrlimit(kind, (soft, hard))


def _outcome(
    request: Mapping[str, Any], detector: Detector, limits: Mapping[str, float]
) -> dict[str, object]:
    path = request["path"]
    try:
        return _score(Path(path), request, detector)
    except (UnsupportedModelError, MissingExtraError) as fault:
        return {"status": "skipped", "reason": _without_path(str(fault), path)}
    except LitmusError as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": _without_path(str(fault), path)}
    except MemoryError:
        pass
    except Exception as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": f"{type(fault).__name__}: {fault}"[:1000]}
    return {
        "status": "failed",
        "error": f"needs more memory than the limit of {limits['memory_mib']:g} MiB",
    }


def _score(path: Path, request: Mapping[str, Any], detector: Detector) -> dict[str, object]:
    stated = request["preprocessing"]
    preprocessing = Preprocessing.for_model(path, stated)
    started = time.perf_counter()
    model = FORMATS[request["format"]].load(path, preprocessing, expected=detector.input_spec)
    loaded = time.perf_counter()
    reason = _unfit(model, detector)
    if reason:
        return {"status": "skipped", "reason": reason}
    measurement = detector.measure(model)
    return {
        "status": "scored",
        "measurement": measurement.to_json(),
        "notes": list(getattr(model, "notes", ())),
        "classes": list(getattr(model, "classes", ())),
        "load_seconds": loaded - started,
        "measure_seconds": time.perf_counter() - loaded,
    }


def _unfit(model: Any, detector: Detector) -> str | None:
    """Why a detector can't measure a model, or None."""
    if model.input_spec != detector.input_spec:
        return f"the model takes {model.input_spec}, the detector {detector.input_spec}"
    needs = {"weights": detector.needs_weights, "torch_module": detector.needs_gradients}
    for name, needed in needs.items():
        if needed and not hasattr(model, name):
            return f"the detector {detector.name} needs the model's {name}, which it can't give"
    if detector.needs_images:
        return f"the detector {detector.name} needs images, which a scan does not have"
    return None


def _is_out_of_memory(fault: Exception) -> bool:
    """Whether C++ said so: onnxruntime has no exception type for it."""
    text = str(fault)
    return "bad_alloc" in text or "allocate memory" in text or "Cannot allocate" in text


def _without_path(text: str, path: str) -> str:
    """The result names its file already."""
    return text.removeprefix(f"{path}: ")


if __name__ == "__main__":
    main()
