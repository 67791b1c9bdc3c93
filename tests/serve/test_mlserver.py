"""`make test-serve`: the scanner against a real MLServer, which has an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from litmus.scanning import Failed, Scored, scan
from tests.formats.onnx_models import classifier, detector, save

MLSERVER = os.environ.get("LITMUS_MLSERVER", "")

pytestmark = pytest.mark.skipif(not MLSERVER, reason="no MLServer: make test-serve has one")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a model that MLServer runs, and its file."""
    folder = tmp_path_factory.mktemp("mlserver")
    file = save(classifier(gain=0.05), folder / "model.onnx")
    shutil.copy(Path(__file__).with_name("onnx_runtime.py"), folder)
    model = {
        "name": "digits",
        "implementation": "onnx_runtime.OnnxRuntime",
        "parameters": {"uri": str(file)},
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 6, 5]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    port = free_port()
    settings = {
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    program = str(Path(MLSERVER).absolute())
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "start", "."], cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/models/digits/ready", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v2/models/digits", file
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"MLServer is not ready: {log.read_text()[-2000:]}")


def test_a_model_that_mlserver_runs_has_the_score_of_its_file(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    url, file = server
    known = tmp_path / "patterns.litmus"
    known.write_bytes(detector().to_bytes())
    served, own = scan([url, file], detector=known)
    assert isinstance(served, Scored), served
    assert isinstance(own, Scored), own
    assert served.score == pytest.approx(own.score, abs=1e-4)
    assert any(note.startswith("asked over the network: ") for note in served.notes)


def test_a_model_that_mlserver_does_not_run_fails(server: tuple[str, Path], tmp_path: Path) -> None:
    known = tmp_path / "patterns.litmus"
    known.write_bytes(detector().to_bytes())
    (result,) = scan([server[0].replace("digits", "letters")], detector=known)
    assert isinstance(result, Failed)
    assert "no such model" in result.error
