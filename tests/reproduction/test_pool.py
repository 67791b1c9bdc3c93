from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from litmus.errors import LitmusError, UsageError
from litmus.reproduction import run_tasks
from litmus.reproduction.detection import table1_tasks
from litmus.reproduction.pool import CACHE, missing_tasks
from litmus.reproduction.tasks import FitTask, MeasureTask, Task, digest
from tests.cli.test_cli import LISTENING
from tests.conftest import Folders
from tests.reproduction.conftest import Open


def scores(tasks: Sequence[Task], workers: int) -> list[object]:
    answers = run_tasks(tasks, workers=workers)
    return [answers[task].get("scores", answers[task].get("score")) for task in tasks]


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (FitTask, MeasureTask):
        monkeypatch.setattr(kind, "compute", lambda task: pytest.fail("computed again"))


def test_what_is_done_is_not_done_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = table1_tasks(opened(seeds=(0,), num_patterns=(1,)))
    part = tasks[:3]
    first = scores(part, 1)
    assert len(missing_tasks(tasks)) == len(tasks) - 3
    rest = scores(tasks, 1)
    assert rest[:3] == first
    forbid_computing(monkeypatch)
    assert scores(tasks, 1) == rest
    assert scores([*tasks, *tasks], 2) == [*rest, *rest]


@pytest.mark.parametrize("damage", ["", '{"key": 1', '{"key": {}, "result": {"scores": [0]}}'])
def test_a_damaged_result_is_computed_again(damage: str, opened: Open) -> None:
    (task, *_) = table1_tasks(opened(num_patterns=(1,), seeds=(0,)))
    expected = scores([task], 1)
    path = task.folder / CACHE / f"{digest(task)}.json"
    whole = path.read_text()
    path.write_text(damage or whole[: len(whole) // 2])
    assert missing_tasks([task]) == [task]
    assert scores([task], 1) == expected
    assert missing_tasks([task]) == []


def test_the_number_of_workers_changes_nothing(opened: Open) -> None:
    tasks = table1_tasks(opened(seeds=(0,), num_patterns=(2,)))[:4]
    seen: list[tuple[int, int]] = []
    answers = run_tasks(tasks, workers=2, on_progress=lambda d, t, note: seen.append((d, t)))
    two = [answers[task].get("scores", answers[task].get("score")) for task in tasks]
    assert seen == [(i, len(tasks)) for i in range(len(tasks) + 1)]
    for task in tasks:
        (task.folder / CACHE / f"{digest(task)}.json").unlink()
    assert scores(tasks, 1) == two


def test_a_failure_in_a_worker_is_told(opened: Open) -> None:
    study = opened()
    entry = study.zoos["small"].entries[0]
    entry.path.unlink()
    entry.path.write_bytes(b"nothing")
    with pytest.raises(LitmusError, match=entry.id):
        run_tasks([study.measurement("small", "neural_cleanse", entry)], workers=2)
    with pytest.raises(UsageError, match="--workers"):
        run_tasks([], workers=0)


@dataclass(frozen=True, kw_only=True)
class Deadly(MeasureTask):
    def compute(self) -> dict[str, Any]:
        os._exit(9)


def test_a_worker_that_dies_is_told(opened: Open) -> None:
    study = opened()
    task = study.measurement("small", "neural_cleanse", study.zoos["small"].entries[0])
    with pytest.raises(LitmusError, match="a worker process died"):
        run_tasks([Deadly(**vars(task))], workers=2)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(
    signal_: signal.Signals, folders: Folders, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-c", LISTENING, "reproduce", "intuition", "--dataset", "small",
        "--recipes", str(folders.recipes), "--zoos", str(folders.zoos), "-o", str(tmp_path / "o"),
        "--workers", "2", "--epochs", "100000", "--patterns", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            workers = _wait_for_workers(process)
            time.sleep(2)
            process.send_signal(signal_)
            start = time.monotonic()
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()
    if signal_ is signal.SIGINT:
        assert time.monotonic() - start < 5
        assert process.returncode == 130
        assert "the same command goes on" in err


def _wait_for_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = [
            child
            for child in psutil.Process(process.pid).children()
            if any("spawn_main" in part for part in child.cmdline())
        ]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no workers")
