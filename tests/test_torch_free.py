"""Scanning an ONNX file asks for no heavy library, in no process; the start-up hook below sees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from litmus.detectors import Detector
from tests.formats.onnx_models import (
    classifier,
    detector,
    fused_detector,
    layer_detector,
    save,
)

HEAVY = ("torch", "sklearn", "datasets", "matplotlib", "pydantic", "scipy", "pandas", "PIL", "ray")

# Python runs this at the start of the parent and of the process that scores; the children that
# are forked from the latter inherit it.
HOOK = """
import os, sys

log = os.open(os.environ["IMPORT_LOG"], os.O_WRONLY | os.O_APPEND)


class Recorder:
    def find_spec(self, name, path=None, target=None):
        os.write(log, f"{os.getpid()} {name}\\n".encode())
        return None


sys.meta_path.insert(0, Recorder())
"""

SCRIPT = """
import os, sys
from litmus.scanning import Scored, exit_code, scan
from litmus.formats.preprocessing import Preprocessing

results = list(scan(sys.argv[1], detector=sys.argv[2], preprocessing=Preprocessing(scale=2.0)))
assert len(results) == 2 and all(isinstance(result, Scored) for result in results), results
print(os.getpid())
"""


@pytest.mark.parametrize("make", [detector, layer_detector, fused_detector])
def test_neither_the_parent_nor_what_scores_imports_a_heavy_library(
    make: Callable[[], Detector], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        save(classifier(), tmp_path / "models" / f"{name}.onnx")
    (tmp_path / "tiny.litmus").write_bytes(make().to_bytes())
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    log = tmp_path / "log"
    log.touch()
    folders = [str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(folders), "IMPORT_LOG": str(log)
    }  # fmt: skip
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(
        [*command, str(tmp_path / "models"), str(tmp_path / "tiny.litmus")],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    asked: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        process, name = line.split()
        asked.setdefault(process, set()).add(name.split(".")[0])
    parent = asked.pop(done.stdout.strip())
    assert {"litmus", "numpy"} <= parent
    assert "onnx" not in parent  # a model is parsed in the child alone
    assert any({"litmus", "onnx", "onnxruntime"} <= names for names in asked.values())
    for names in (parent, *asked.values()):
        assert not names & set(HEAVY)
