"""How long a scan takes: one file in a process of its own, and each further file in a folder.

The second figure stands beside a bare onnxruntime loop that loads each file and runs the same
images in the same batches, without isolation, recognition or a score. What those images are is
recorded from a scan's own code on the first file. Both are measured in turns, since the machine may
be busy, and as processor time of all processes together, which depends less on that.

    python -m benchmarks.scan_bench [--files 1000] [--jobs 1] [--rounds 5] [--detector NAME]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import report
from litmus.detectors.candidates import Candidates
from litmus.formats import onnx_file
from litmus.models import InputSpec
from litmus.scanning.child import OPTIONS, score_file

SPEC: Final = InputSpec(channels=1, height=28, width=28, num_classes=10)
LIMITS: Final = {
    "beyond_bare_ms": 10.0,
    "parent_peak_mib": 300.0,
    "cold_seconds": 1.0,
    "help_seconds": 0.3,
}
"""What each figure may be at most."""

# Scans a folder as a program of its own, whose peak is then a scan's and not a benchmark's.
SCAN: Final = """
import json, os, sys, time
from pathlib import Path
from litmus.scanning import Scored, scan

def peak(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

folder, jobs, detector = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
results = scan(folder, jobs=jobs, detector=detector)
first = next(results)
started, number = time.perf_counter(), 0
mothers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
for result in results:
    assert isinstance(result, Scored), result
    number += 1
    if number % 100 == 0:
        mother_peak = max(map(peak, mothers))
seconds = time.perf_counter() - started
print(json.dumps({
    "scan_ms_per_file_and_worker": seconds * 1e3 / number * jobs,
    "parent_peak_mib": peak("self"),
    "mother_peak_mib": mother_peak,
    "sandbox": ", ".join(first.sandbox.held),
}))
"""


def main() -> None:
    """Make models, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--detector", default="", help="by default the one that the shape picks")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    output = options.__dict__.pop("output")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(options.files):
            (folder / f"{i:05}.onnx").write_bytes(make_model(i))
        facts = measure(folder, options.jobs, options.rounds, options.detector)
    report({**vars(options), **facts, "limits": LIMITS}, output)


def measure(folder: Path, jobs: int, rounds: int, detector: str) -> dict[str, object]:
    """Return medians: seconds for whole programs, milliseconds a file for the others."""
    files = sorted(folder.iterdir())
    feeds = asked_of(files[0], detector)
    rows: dict[str, list[float]] = {}
    sandbox = ""

    def bare() -> None:
        for file in files:
            session = onnx_file.create_session(file.read_bytes(), file)
            for feed in feeds:
                session.run(None, feed)

    for _ in range(rounds):
        wall, cpu = timed(bare)
        figures = {
            "bare_ms_per_file": wall * 1e3 / len(files),
            "bare_cpu_ms_per_file": cpu * 1e3 / len(files),
        }
        done, _, cpu = run("-c", SCAN, str(folder), str(jobs), detector)
        told = json.loads(done)
        sandbox = told.pop("sandbox")
        figures |= {**told, "scan_cpu_ms_per_file": cpu * 1e3 / len(files)}
        figures["beyond_bare_ms"] = (
            figures["scan_ms_per_file_and_worker"] - figures["bare_ms_per_file"]
        )
        chosen = ["--detector", detector] if detector else []
        _, *figures_of = run("-m", "litmus", "scan", str(files[0]), *chosen)
        figures["cold_seconds"], figures["cold_cpu_seconds"] = figures_of
        _, *figures_of = run("-m", "litmus", "--help")
        figures["help_seconds"], figures["help_cpu_seconds"] = figures_of
        for name, value in figures.items():
            rows.setdefault(name, []).append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    images = sum(len(next(iter(feed.values()))) for feed in feeds)
    return {**medians, "images_per_file": images, "runs_per_file": len(feeds), "sandbox": sandbox}


def asked_of(file: Path, detector: str) -> list[dict[str, NDArray[Any]]]:
    """Return what a scan feeds to the session of a model, batch by batch."""
    feeds: list[dict[str, NDArray[Any]]] = []
    create = onnx_file.create_session

    def recording(*arguments: Any) -> Any:
        session = create(*arguments)
        run_as_before = session.run

        def run_recorded(outputs: Any, feed: dict[str, NDArray[Any]], *more: Any) -> Any:
            feeds.append({name: array.copy() for name, array in feed.items()})
            return run_as_before(outputs, feed, *more)

        session.run = run_recorded
        return session

    candidates = Candidates.of(detector) if detector else Candidates.bundled()
    request = {**OPTIONS, "path": str(file), "format": "onnx"}
    with mock.patch.object(onnx_file, "create_session", recording):
        outcome = score_file(request, candidates.detectors)
    assert outcome["status"] == "scored", outcome
    return feeds


def run(*arguments: str) -> tuple[str, float, float]:
    """Run Python; return what it prints, and its wall-clock and processor seconds."""
    out = ""

    def work() -> None:
        nonlocal out
        command = [sys.executable, *arguments]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        assert done.returncode in (0, 1), done.returncode
        out = done.stdout

    wall, cpu = timed(work)
    return out, wall, cpu


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return wall-clock and processor seconds, children included."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def make_model(seed: int) -> bytes:
    """Two convolutions of stride 2 and a linear layer, 20,000 parameters."""
    random = np.random.default_rng(seed)
    shapes = {"c1": (16, 1, 3, 3), "c2": (32, 16, 3, 3), "w": (32 * 7 * 7, 10)}
    weights = [
        numpy_helper.from_array((random.normal(size=shape) * 0.1).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "c1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "c2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SPEC.image_shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SPEC.num_classes])
    graph = helper.make_graph(nodes, "bench", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
