"""The whole corpus of hostile files in one scan: each ends with its own message, none in a hang."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.formats.onnx_models import SPEC, detector, save
from tests.hostile.onnx_files import MODELS, Ending
from tests.hostile.other_files import FILES, Write

MEMORY_MIB: Final = 1024
SECONDS: Final = 3

# In a process of its own, so that the most memory that it and its children took can be asked for.
SCRIPT: Final = """
import json, resource, sys
from litmus.scanning import Limits, scan

folder, detector = sys.argv[1:3]
limits = Limits(wall_seconds=float(sys.argv[3]), memory_mib=float(sys.argv[4]))
results = scan(folder, detector=detector, limits=limits, architecture="resnet:width=4", jobs=4)
told = {r.path.name: (type(r).__name__.lower(), getattr(r, "error", getattr(r, "reason", "")))
        for r in results}
# Not ru_maxrss, in which the process that started this one counts, too.
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
mib = {"scanner": int(peak.split()[1]) / 1024,
       "child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}
print(json.dumps({"told": told, "mib": mib}))
"""


def model_writer(name: str) -> Write:
    def write(path: Path, canary: Path) -> None:
        save(MODELS[name][0](), path)

    return write


CORPUS: Final[dict[str, tuple[Write, Ending]]] = {
    **{f"{name.replace('/', ' ')}.onnx": (model_writer(name), MODELS[name][1]) for name in MODELS},
    **FILES,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a scan of the whole corpus tells, and the most memory that each process took."""
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "models"
    folder.mkdir()
    for name, (write, _) in CORPUS.items():
        write(folder / name, root / "canary")
    (root / "tiny.litmus").write_bytes(detector(SPEC).to_bytes())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, root / "tiny.litmus", str(SECONDS),
         str(MEMORY_MIB)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return {**json.loads(done.stdout), "canary": root / "canary"}


@pytest.mark.parametrize("name", CORPUS)
def test_each_ends_with_a_message_of_its_own(outcome: dict[str, Any], name: str) -> None:
    kind, message = outcome["told"][name]
    expected, pattern = CORPUS[name][1]
    assert kind == expected, message
    assert re.search(pattern, message), message
    assert message.isprintable()


def test_no_canary_fires_and_memory_stays_below_the_limit(outcome: dict[str, Any]) -> None:
    assert not Path(outcome["canary"]).exists()
    assert outcome["mib"]["scanner"] < 300
    # What a process of PyTorch's holds before it reads a file comes on top of its limit.
    assert outcome["mib"]["child"] < MEMORY_MIB + 600
    assert outcome["told"].keys() >= CORPUS.keys()
