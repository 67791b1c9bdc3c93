"""Mutated ONNX files through whole scans: whatever their processes do, the scanner goes on."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Final

from litmus.scanning import Failed, Limits, Scored, scan
from tests.formats.onnx_models import detector
from tests.fuzz.mutation import mutated_bytes, mutated_model
from tests.fuzz.run import Outcome, Report
from tests.fuzz.targets import onnx_models

__all__ = ["SCAN", "fuzz_scans"]

SCAN: Final = "scan"
"""The name that stands for this among the targets."""

_AT_ONCE: Final = 500
_LIMITS: Final = Limits(wall_seconds=5, memory_mib=1024)


def fuzz_scans(seed: int, inputs: int) -> Report:
    """Scan so many mutated files, some hundred at a time; a fault stands for the whole scan."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    while len(outcomes) < inputs:
        numbers = range(len(outcomes), min(inputs, len(outcomes) + _AT_ONCE))
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes += _scan(seed, numbers, Path(folder))
            except Exception:
                outcomes += [
                    Outcome(n, refused=False, fault=traceback.format_exc()) for n in numbers
                ]
    return Report(outcomes=outcomes, seconds=time.monotonic() - started)


def _scan(seed: int, numbers: range, folder: Path) -> list[Outcome]:
    paths = []
    for number in numbers:
        paths.append(folder / f"{number}.onnx")
        paths[-1].write_bytes(_mutated(Random(f"{SCAN}/{seed}/{number}")))
    (folder / "tiny.litmus").write_bytes(detector().to_bytes())
    results = scan(paths, detector=folder / "tiny.litmus", jobs=2, limits=_LIMITS)
    outcomes = []
    for number, path, result in zip(numbers, paths, results, strict=True):
        assert result.path == path
        # The process that reads files forks others for them, and has to outlive them all.
        died = isinstance(result, Failed) and "the process that scores models" in result.error
        fault = result.error if died and isinstance(result, Failed) else ""
        refused = not isinstance(result, Scored) and not fault
        outcomes.append(Outcome(number, refused=refused, fault=fault))
    return outcomes


def _mutated(random: Random) -> bytes:
    data = mutated_model(random, random.choice(onnx_models())).SerializeToString()
    return mutated_bytes(random, data) if random.random() < 0.4 else data
