"""How long a scan takes: one file in a process of its own, and each further file in a folder.

The second figure stands beside a bare onnxruntime loop that loads each file and runs the same
patterns, without isolation. Both are measured in turns, since the machine may be busy, and as
processor time of all processes together, which depends less on that.

    python -m benchmarks.scan_bench [--files 200] [--jobs 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import report
from litmus.detectors.calibration import Calibration
from litmus.detectors.patterns import Member, ULPDetector
from litmus.formats.onnx_file import create_session
from litmus.models import InputSpec
from litmus.scanning import Scored, scan

SPEC = InputSpec(channels=1, height=28, width=28, num_classes=10)
MEMBERS, PATTERNS = 5, 10


def main() -> None:
    """Make models and a detector, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    output = options.__dict__.pop("output")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector = make_detector()
        (folder / "bench.litmus").write_bytes(detector.to_bytes())
        for i in range(options.files):
            (folder / "models").mkdir(exist_ok=True)
            (folder / "models" / f"{i:05}.onnx").write_bytes(make_model(i))
        facts = measure(folder, detector, options.jobs, options.rounds)
    report({**vars(options), **facts}, output)


def measure(folder: Path, detector: ULPDetector, jobs: int, rounds: int) -> dict[str, object]:
    """Return medians: seconds for the cold scan, milliseconds a file for the others."""
    files = sorted((folder / "models").iterdir())
    queries = detector.queries
    rows: dict[str, list[float]] = {}

    def bare() -> None:
        for file in files:
            create_session(file.read_bytes(), file).run(None, {"x": queries})

    def further() -> float:
        results = scan(folder / "models", detector=folder / "bench.litmus", jobs=jobs)
        assert isinstance(next(results), Scored)  # the mother is warm
        started = time.perf_counter()
        assert all(isinstance(result, Scored) for result in results)
        return (time.perf_counter() - started) * 1e3 / (len(files) - 1) * jobs

    def cold() -> None:
        command = [sys.executable, "-m", "litmus", "scan", str(files[0])]
        command += ["--detector", str(folder / "bench.litmus")]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        assert done.returncode in (0, 1), done.returncode

    for _ in range(rounds):
        wall, cpu = timed(bare)
        rows.setdefault("bare_ms_per_file", []).append(wall * 1e3 / len(files))
        rows.setdefault("bare_cpu_ms_per_file", []).append(cpu * 1e3 / len(files))
        rows.setdefault("scan_ms_per_file_and_worker", []).append(further())
        wall, cpu = timed(cold)
        rows.setdefault("cold_seconds", []).append(wall)
        rows.setdefault("cold_cpu_seconds", []).append(cpu)
    medians = {name: round(statistics.median(values), 3) for name, values in rows.items()}
    beyond = medians["scan_ms_per_file_and_worker"] - medians["bare_ms_per_file"]
    return {**medians, "beyond_bare_ms": round(beyond, 3)}


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return wall-clock and processor seconds, children included."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def make_detector() -> ULPDetector:
    """Five members of ten random patterns each, as many as a shipped detector has."""
    random = np.random.default_rng(0)
    features = PATTERNS * SPEC.num_classes
    member = [
        Member(
            patterns=random.random((PATTERNS, *SPEC.image_shape)).astype(np.float32),
            parameters={
                "weight": random.normal(size=(2, features)),
                "bias": np.zeros(2),
                "mean": np.zeros(features),
                "std": np.ones(features),
            },
        )
        for _ in range(MEMBERS)
    ]
    calibration = Calibration(
        scores=random.normal(size=199),
        members=np.arange(199) % MEMBERS,
        temperature=1.0,
        scope_limit=1e3,
    )
    return ULPDetector(
        input_spec=SPEC, calibration=calibration, scope={}, held_out={}, members=member
    )


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
