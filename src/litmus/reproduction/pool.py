"""Running tasks: what is cached is read, the rest goes to worker processes, one thread each."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

from litmus.artifacts import canonical_json, remove_temporary_files, write_atomically
from litmus.errors import LitmusError, UsageError
from litmus.reproduction.tasks import Task, digest

__all__ = ["Answers", "Progress", "missing_tasks", "read_result", "run_tasks"]

CACHE: Final = "results-cache"

Progress = Callable[[int, int, str], None]
"""(done, total, note)."""
Finished = Iterator[tuple[str, dict[str, Any]]]
"""Digest and result, as they come."""


class Answers:
    """The results of tasks, by task."""

    def __init__(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        self._results = results

    def __getitem__(self, task: Task) -> Mapping[str, Any]:
        return self._results[digest(task)]


def read_result(task: Task) -> dict[str, Any] | None:
    """Return a task's cached result, or None where there is none or it is not whole."""
    path = task.folder / CACHE / f"{digest(task)}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if canonical_json(content["key"]) == canonical_json(task.key()):
            return dict(content["result"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def missing_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks without a cached result, each once, in their order."""
    unique = {digest(task): task for task in tasks}
    return [task for task in unique.values() if read_result(task) is None]


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int,
    on_progress: Progress = lambda done, total, note: None,
) -> Answers:
    """Return every task's result; the results do not depend on the number of workers.

    Each is written beside the zoo as soon as it is there, so that another call goes on where
    this one was stopped. Raises UsageError for an impossible number of workers, and what a task
    raises.
    """
    if workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    unique = {digest(task): task for task in tasks}
    found = {name: read_result(task) for name, task in unique.items()}
    results = {name: result for name, result in found.items() if result is not None}
    waiting = {name: task for name, task in unique.items() if name not in results}
    for folder in {task.folder / CACHE for task in waiting.values()}:
        remove_temporary_files(folder)

    def report(note: str) -> None:
        on_progress(len(results), len(unique), note)

    report("")
    run = _run_here if workers == 1 else _run_in_pool
    for name, result in run(waiting, workers):
        results[name] = result
        report(waiting[name].label)
    return Answers(results)


def _compute(task: Task) -> dict[str, Any]:
    """Compute and store one result; here or in a worker."""
    result = task.compute()
    content = {"key": task.key(), "result": result}
    write_atomically(task.folder / CACHE / f"{digest(task)}.json", json.dumps(content))
    return result


def _run_here(waiting: Mapping[str, Task], workers: int) -> Finished:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, task in waiting.items():
            yield name, _compute(task)
    finally:
        torch.set_num_threads(threads)


def _run_in_pool(waiting: Mapping[str, Task], workers: int) -> Finished:
    if not waiting:
        return
    strangers = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(waiting)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        # Workers inherit the mask: Ctrl-C comes to this process alone, after they have started.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures = {pool.submit(_compute, task): name for name, task in waiting.items()}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as fault:
        raise LitmusError(
            "a worker process died; what was finished is kept", expected="enough memory"
        ) from fault
    finally:
        for worker in set(multiprocessing.active_children()) - strangers:
            worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A worker waits for its next task in vain when the parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
