"""Worker processes that make models, and what happens when one of them dies."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from litmus.errors import ZooError
from litmus.zoo.groups import Seat, Waiting, named

__all__ = ["Crew"]

_MAX_CRASHES: Final = 3
"""A model whose worker dies (killed for memory, say) is tried again; not for ever."""


class Crew:
    """`size` processes that run `module`, one thread each, each with at most one stack in hand.

    The module's `main` is `litmus.zoo.worker.serve`; `setup` is what it gets first. A stack has at
    most `stack` models. A context: leaving it kills the models in flight.
    """

    def __init__(self, size: int, module: str, setup: dict[str, Any], *, stack: int = 1) -> None:
        self._size, self._module, self._setup, self._stack = size, module, setup, stack
        self._selector = selectors.DefaultSelector()
        self._idle: list[subprocess.Popen[str]] = []
        self._busy: dict[subprocess.Popen[str], Sequence[Seat]] = {}

    def __enter__(self) -> Crew:
        self._idle = [self._start() for _ in range(self._size)]
        return self

    def __exit__(self, *exception: object) -> None:
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.kill()  # all of them before waiting for any
        for worker in workers:
            self._end(worker)
        self._selector.close()

    def replies(self, waiting: Waiting) -> Iterator[tuple[Seat, dict[str, Any]]]:
        """Yield what workers say of each model, as they finish; `waiting` may grow meanwhile.

        Raises ZooError where a worker reports a mistake, or dies of the same model again and again.
        """
        crashes: dict[str, int] = {}
        while waiting or self._busy:
            while waiting and self._idle:
                self._give(waiting.take(self._stack))
            group, reply = self._next_reply()
            if reply is not None:
                yield from zip(group, reply, strict=True)
                continue
            for seat in group:
                crashes[seat.spec.id] = crashes.get(seat.spec.id, 0) + 1
                if crashes[seat.spec.id] == _MAX_CRASHES:
                    raise ZooError(f"the worker died {_MAX_CRASHES} times", where=named(group))
            waiting.put_first(group)

    def _give(self, group: Sequence[Seat]) -> None:
        """Hand models to an idle worker."""
        worker = self._idle.pop()
        self._busy[worker] = group
        self._write(worker, [seat.to_json() for seat in group])

    def _next_reply(self) -> tuple[Sequence[Seat], list[dict[str, Any]] | None]:
        """Wait for a worker; its reply is None when it died, and another takes its place."""
        while True:
            key, _ = self._selector.select()[0]
            worker: subprocess.Popen[str] = key.data
            assert worker.stdout is not None
            line = worker.stdout.readline()
            group = self._busy.pop(worker, None)
            if group is not None and line.endswith("\n"):
                break
            if group is None:
                self._idle.remove(worker)
            self._end(worker)
            self._idle.append(self._start())
            if group is not None:
                return group, None
        self._idle.append(worker)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ZooError(reply["error"], where=named(group))
        return group, reply["models"]

    def _start(self) -> subprocess.Popen[str]:
        single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        worker = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **single},
            text=True,
            # Ctrl-C goes to the builder alone.
            start_new_session=True,
        )
        assert worker.stdout is not None
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        self._write(worker, self._setup)
        return worker

    def _end(self, worker: subprocess.Popen[str]) -> None:
        worker.kill()
        worker.wait()
        assert worker.stdin is not None
        assert worker.stdout is not None
        self._selector.unregister(worker.stdout)
        worker.stdout.close()
        with contextlib.suppress(OSError):  # what it did not read can't be flushed
            worker.stdin.close()

    @staticmethod
    def _write(worker: subprocess.Popen[str], message: object) -> None:
        assert worker.stdin is not None
        try:
            worker.stdin.write(json.dumps(message) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            pass  # the worker is dead; `_next_reply` notices
