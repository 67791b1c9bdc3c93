"""Scanning an ONNX file and listing a zoo ask for no heavy library, in no process.

The start-up hook below sees what is asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from litmus.detectors import Detector
from litmus.zoo import Zoo
from tests.formats.onnx_models import (
    classifier,
    detector,
    fused_detector,
    layer_detector,
    save,
    search_detector,
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

path, detector, effort = sys.argv[1:]
scaled = Preprocessing(scale=2.0)
results = list(scan(path, detector=detector, effort=effort, preprocessing=scaled))
assert len(results) == 2 and all(isinstance(result, Scored) for result in results), results
print(os.getpid())
"""

OPEN = """
import sys
import litmus
from litmus.reports.zoo import zoo_table

print(zoo_table(litmus.Zoo.open(sys.argv[1])))
"""

LIST = """
import sys
from litmus.cli import main

sys.argv = ["litmus", "zoo", "list", sys.argv[1]]
main()
"""


@pytest.mark.parametrize(
    ("make", "effort"),
    [
        (detector, "standard"),
        (layer_detector, "standard"),
        (fused_detector, "standard"),
        (search_detector, "standard"),
        (fused_detector, "thorough"),  # which asks for maximum margins
    ],
)
def test_neither_the_parent_nor_what_scores_imports_a_heavy_library(
    make: Callable[[], Detector], effort: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        save(classifier(), tmp_path / "models" / f"{name}.onnx")
    (tmp_path / "tiny.litmus").write_bytes(make().to_bytes())
    places = [str(tmp_path / "models"), str(tmp_path / "tiny.litmus")]
    said, asked = run(SCRIPT, *places, effort, at=tmp_path)
    parent = asked.pop(said.strip())
    assert {"litmus", "numpy"} <= parent
    assert "onnx" not in parent  # a model is parsed in the child alone
    assert any({"litmus", "onnx", "onnxruntime"} <= names for names in asked.values())
    for names in (parent, *asked.values()):
        assert not names & set(HEAVY)


@pytest.mark.parametrize(
    ("script", "heavy"),
    [
        (OPEN, HEAVY),
        (LIST, set(HEAVY) - {"pydantic"}),  # which some versions of typer import
    ],
)
def test_what_reads_headers_alone_imports_no_heavy_library(
    script: str, heavy: Collection[str], small_zoo: Zoo, tmp_path: Path
) -> None:
    said, asked = run(script, str(small_zoo.path), at=tmp_path)
    assert all(entry.id in said for entry in small_zoo.entries)
    names = set().union(*asked.values())
    assert "litmus" in names
    assert not names & set(heavy)


def run(script: str, *arguments: str, at: Path) -> tuple[str, dict[str, set[str]]]:
    """Return what a script wrote, and what each process asked to import, by its number."""
    (at / "hook").mkdir()
    (at / "hook" / "sitecustomize.py").write_text(HOOK)
    log = at / "log"
    log.touch()
    folders = [str(at / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(folders), "IMPORT_LOG": str(log)
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    asked: dict[str, set[str]] = {}
    for line in log.read_text().splitlines():
        process, name = line.split()
        asked.setdefault(process, set()).add(name.split(".")[0])
    return done.stdout, asked
