"""A small share of `make fuzz`, and that it finds what it looks for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import run
from tests.fuzz.run import fuzz
from tests.fuzz.scanned import fuzz_scans
from tests.fuzz.targets import TARGETS, Fuzzed

INPUTS = 200


@pytest.mark.parametrize("target", TARGETS)
def test_no_parser_fails_otherwise_than_it_means_to(target: str) -> None:
    report = fuzz(target, seed=1, inputs=INPUTS)
    assert len(report.outcomes) == INPUTS
    assert not report.faults, report.faults[0]
    # Inputs that are all refused at the first byte would test nothing behind it.
    assert report.refused < INPUTS


def test_scans_of_mutated_files_go_on() -> None:
    report = fuzz_scans(seed=1, inputs=60)
    assert [outcome.number for outcome in report.outcomes] == list(range(60))
    assert not report.faults
    assert 0 < report.refused < 60


def falling(random: Random, folder: Path) -> None:
    """Refuses an input of three, fails at the fourth, and dies, hangs and swallows later."""
    number = len(list(folder.iterdir()))
    (folder / str(number)).touch()
    if number == 2:
        raise LookupError("meant")
    if number == 3:
        raise ZeroDivisionError("not meant")
    if number == 4:
        bytes(2**32)
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def hanging(random: Random, folder: Path) -> None:
    time.sleep(60)


def test_what_goes_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "falling", Fuzzed(read=falling, allowed=(LookupError,)))
    report = fuzz("falling", seed=0, inputs=8)
    assert [outcome.refused for outcome in report.outcomes].count(True) == 1
    told = {outcome.number: outcome.fault for outcome in report.faults}
    assert list(told) == [3, 4, 5]
    assert "ZeroDivisionError: not meant" in told[3]
    assert "MemoryError" in told[4]
    assert told[5] == "the process ended with code -9"


def test_what_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "hanging", Fuzzed(read=hanging, allowed=()))
    monkeypatch.setattr(run, "SECONDS", 1)
    (fault,) = fuzz("hanging", seed=0, inputs=1).faults
    assert fault.fault == "the process ended with code -14"


def test_the_same_seed_gives_the_same_inputs() -> None:
    outcomes = [fuzz("reply", seed=5, inputs=50).outcomes for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert fuzz("onnx", 5, 50).outcomes != fuzz("onnx", 6, 50).outcomes
