"""The processes that score models, seen from the scanner: started, asked, heard, ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from litmus.errors import DetectorError, LitmusError, UsageError
from litmus.server_address import TOKEN_VARIABLE

__all__ = ["Crew"]

# A mother enforces the limits on its child; one that is silent for so many seconds longer
# (its start and reading a large file included) is given up.
_GRACE: Final = 120.0
_SINGLE_THREADED: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)


# For glibc's malloc, elsewhere ignored: a child grows its heap in huge pages and gives nothing
# back, which spares it a tenth of its time in page faults.
_MALLOC: Final = "glibc.malloc." + ":glibc.malloc.".join(
    ("hugetlb=1", "top_pad=8388608", "mmap_threshold=67108864", "trim_threshold=268435456")
)


_SETUP_ERRORS: Final[Mapping[str, type[LitmusError]]] = {
    "detector": DetectorError,
    "architecture": UsageError,
}


class Crew:
    """Up to `jobs` mothers at work, each with one file in hand; a context that ends them all.

    Mothers for formats that need PyTorch are apart from the others, and so are those whose
    children ask servers.
    """

    def __init__(self, jobs: int, limits: Mapping[str, float]) -> None:
        self._jobs, self._limits = jobs, limits
        self._set_up: dict[str, object] = {}
        self._selector = selectors.DefaultSelector()
        # A mother whose set-up has not been said yet.
        self._unborn: list[_Mother] = []
        self._idle: dict[_Kind, list[_Mother]] = defaultdict(list)
        self._busy: dict[_Mother, int] = {}

    def __enter__(self) -> Crew:
        """Start the first process: it imports what it needs while we do."""
        self._unborn.append(_Mother())
        return self

    def __exit__(self, *exception: object) -> None:
        for mother in [*self._unborn, *chain(*self._idle.values()), *self._busy]:
            mother.end()
        self._selector.close()

    def set_up(
        self,
        detectors: Mapping[str, Path],
        *,
        effort: str = "quick",
        images: str | Path | None = None,
        architecture: str | None = None,
    ) -> None:
        """Say which detectors' files may score, by name, in the order in which they are tried.

        And with which effort, and on which images. `architecture` is the network of files that
        hold weights alone.
        """
        self._set_up = {
            "detectors": {name: str(path.absolute()) for name, path in detectors.items()},
            "effort": effort,
            "images": None if images is None else str(images),
            "architecture": architecture,
        }

    @property
    def busy(self) -> bool:
        """Whether an answer is due."""
        return bool(self._busy)

    @property
    def has_room(self) -> bool:
        """Whether another file can be given."""
        return len(self._busy) < self._jobs

    def give(
        self,
        index: int,
        request: Mapping[str, object],
        *,
        needs_torch: bool = False,
        network: bool = False,
    ) -> None:
        """Hand out one file, or with `network` an address; `index` comes back with its answer."""
        kind = _Kind(needs_torch=needs_torch, network=network)
        idle = self._idle[kind]
        mother = idle.pop() if idle else self._start(kind)
        self._busy[mother] = index
        self._selector.register(mother.answers, selectors.EVENT_READ, mother)
        mother.tell(request)

    def next_answer(self) -> tuple[int, dict[str, Any]]:
        """Wait for a mother's answer; where it died, the answer is `failed`.

        Raises DetectorError where a detector can't be loaded, UsageError where there is no such
        architecture.
        """
        oldest = min(self._busy, key=lambda mother: mother.asked_at)
        patience = oldest.asked_at + self._limits["wall_seconds"] + _GRACE - time.monotonic()
        ready = self._selector.select(max(0.0, patience))
        mother: _Mother = ready[0][0].data if ready else oldest
        line = mother.answers.readline() if ready else ""
        self._selector.unregister(mother.answers)
        index = self._busy.pop(mother)
        if not line.endswith("\n"):
            code = mother.end()
            cause = f"died, code {code}" if ready else "does not answer"
            return index, {"failed": f"the process that scores models {cause}"}
        answer: dict[str, Any] = json.loads(line)
        if "setup_error" in answer:
            mother.end()
            raise _SETUP_ERRORS[answer["kind"]](answer["setup_error"])
        self._idle[mother.kind].append(mother)
        return index, answer

    def _start(self, kind: _Kind) -> _Mother:
        mother = self._unborn.pop() if self._unborn else _Mother()
        mother.kind = kind
        told = {**self._set_up, "limits": self._limits, **kind._asdict()}
        if kind.network:
            # What a server runs has no gradients.
            told |= {"effort": "quick", "images": None}
        mother.tell(told)
        return mother


class _Kind(NamedTuple):
    """What the children of a mother may need."""

    needs_torch: bool
    network: bool


class _Mother:
    """One process of `mother`; it and its children are a group of their own."""

    def __init__(self) -> None:
        environment = {
            "GLIBC_TUNABLES": _MALLOC,
            **os.environ,
            **_SINGLE_THREADED,
            "ORT_DISABLE_TELEMETRY": "1",
        }
        # It would let a model's file configure onnxruntime.
        environment.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)
        # Told where it is needed: no process that reads a file has it.
        environment.pop(TOKEN_VARIABLE, None)
        self._process = subprocess.Popen(
            # -P: a file numpy.py in the folder that is scanned must not be imported.
            [sys.executable, "-P", "-m", "litmus.scanning.mother"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            # Ctrl-C goes to the scanner alone; and the group can be ended as one.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.answers = self._process.stdout
        self.kind = _Kind(needs_torch=False, network=False)
        self.asked_at = 0.0

    def tell(self, message: Mapping[str, object]) -> None:
        """Write one line; a process that is dead is noticed when its answer is read."""
        self.asked_at = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def end(self) -> int:
        """Kill the process and its child, and return its exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return self._process.wait()
