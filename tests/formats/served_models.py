"""A server of one ONNX model over the Open Inference Protocol, that can be told to misbehave."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from litmus.formats.onnx_file import create_session

NAMES = {"float32": "FP32", "uint8": "UINT8", "float64": "FP64", "float16": "FP16"}


@dataclass
class Reply:
    """What is said in place of the right answer."""

    code: int = 200
    content: Any = None
    """JSON, or bytes as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """Where a model is served, and what was asked of it: paths, bodies, headers."""

    url: str
    asked: list[tuple[str, Any, Mapping[str, str]]]

    @property
    def images(self) -> int:
        """How many images were sent."""
        return sum(body["inputs"][0]["shape"][0] for _, body, _ in self.asked if body)


Amend = Callable[[int, str, Any], Reply | Any]
"""From the number of a request, its path and the right answer to what is said instead."""


@contextlib.contextmanager
def serving(
    model: onnx.ModelProto,
    *,
    amend: Amend | None = None,
    most: int | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Server]:
    """Serve a model at `server.url`; more than `most` images at once are refused.

    Over TLS where there is a `certificate`, a pair with its key.
    """
    session = create_session(model.SerializeToString(), "served")
    asked: list[tuple[str, Any, Mapping[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, None, dict(self.headers)))
            self._answer(_metadata(model))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body, dict(self.headers)))
            tensor = body["inputs"][0]
            if most is not None and tensor["shape"][0] > most:
                self._say(Reply(400, {"error": "batch too large"}))
                return
            try:
                right = _inferred(session, model, tensor)
            except Exception as fault:  # onnxruntime's own, of what the model can't take
                self._say(Reply(400, {"error": str(fault)}))
                return
            self._answer(right)

        def _answer(self, right: Any) -> None:
            said = amend(len(asked), self.path, right) if amend else right
            self._say(said if isinstance(said, Reply) else Reply(content=said))

        def _say(self, reply: Reply) -> None:
            content = reply.content
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(reply.code)
                for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            scheme = "http" if certificate is None else "https"
            yield Server(f"{scheme}://127.0.0.1:{server.server_port}/v2/models/digits", asked)
        finally:
            server.shutdown()
            thread.join()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate of 127.0.0.1 that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the address of a server that says whatever `answer` writes to each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/odd"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _metadata(model: onnx.ModelProto) -> dict[str, Any]:
    return {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [_tensor(value) for value in model.graph.input],
        "outputs": [_tensor(value) for value in model.graph.output],
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    sizes = [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]
    return {"name": value.name, "datatype": NAMES[kind], "shape": sizes}


def _inferred(session: Any, model: onnx.ModelProto, tensor: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {name: kind for kind, name in NAMES.items()}
    images = np.array(tensor["data"], dtype=kinds[tensor["datatype"]]).reshape(tensor["shape"])
    rows = session.run(None, {tensor["name"]: images})[0]
    output = {
        "name": model.graph.output[0].name,
        "datatype": "FP32",
        "shape": list(rows.shape),
        "data": rows.ravel().tolist(),
    }
    return {"model_name": "digits", "outputs": [output]}
