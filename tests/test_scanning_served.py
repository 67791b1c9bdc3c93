from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from onnx import TensorProto
from typer.testing import CliRunner

from litmus.cli import app
from litmus.detectors.candidates import Candidates
from litmus.formats.inference_client import InferenceClient
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.served import connect, read_metadata
from litmus.reports.scan import SCAN_REPORTS, json_schema
from litmus.scanning import Failed, Limits, ScanResult, Scored, Skipped, scan
from litmus.scanning.baseline import Baseline
from litmus.server_address import TOKEN_VARIABLE, address_fault
from tests.formats.onnx_models import SPEC, classifier, detector, fused_detector, save
from tests.formats.served_models import Reply, make_certificate, raw_server, serving


@pytest.fixture(autouse=True)
def _without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    path = tmp_path / "patterns.litmus"
    path.write_bytes(detector().to_bytes())
    return path


def only(target: str | Path, known: Path, **options: Any) -> ScanResult:
    (result,) = scan([str(target)], detector=known, **options)
    return result


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"layout": "nhwc"},
        {"dtype": TensorProto.UINT8},
        {"batch": 4},
        {"ending": ("Softmax",)},
        {"ending": ("LogSoftmax",)},
        {"output": ("n", "k")},
        {"sizes": ("c", "h", "w")},
    ],
    ids=str,
)
def test_a_served_model_has_the_score_of_its_file(
    shape: dict[str, Any], patterns: Path, tmp_path: Path
) -> None:
    model = classifier(gain=0.05, **shape)
    file = only(save(model, tmp_path / "model.onnx"), patterns)
    with serving(model) as server:
        served = only(server.url, patterns)
    assert isinstance(file, Scored)
    assert isinstance(served, Scored), served
    # A file's logits before its softmax are more exact than the probabilities behind it.
    assert served.score == pytest.approx(file.score, abs=1e-3)
    assert served.verdict == file.verdict
    assert str(served.path) == server.url
    assert (served.format, served.model_sha256) == ("served", None)
    assert served.sandbox == file.sandbox
    requests = sum(body is not None for _, body, _ in server.asked)
    sent = f"asked over the network: {server.images} images in {requests} requests"
    assert any(note.startswith(sent) for note in served.notes), (sent, served.notes)


def test_of_a_fused_detector_only_what_asks_answers(tmp_path: Path) -> None:
    known = tmp_path / "fused.litmus"
    known.write_bytes(fused_detector().to_bytes())
    with serving(classifier()) as server:
        result = only(server.url, known, effort="thorough")
    assert isinstance(result, Scored), result
    assert result.parts == ("ulp",)
    assert any(note.startswith("without last_layer") for note in result.notes)


def test_a_server_that_takes_few_images_is_asked_for_few(patterns: Path) -> None:
    with serving(classifier(), most=2) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Scored), result
    sizes = [body["inputs"][0]["shape"][0] for _, body, _ in server.asked if body]
    assert max(sizes) > 2
    assert max(sizes[-2:]) <= 2


def test_a_busy_server_is_asked_again(patterns: Path) -> None:
    def busy(number: int, path: str, right: Any) -> Any:
        if number % 3:
            return Reply(503 if number % 2 else 429, b"later", {"Retry-After": "0"})
        return right

    with serving(classifier(), amend=busy) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Scored), result


def test_the_token_goes_to_the_server_and_into_no_report(
    patterns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    with serving(classifier()) as server:
        told = [
            CliRunner().invoke(app, ["scan", server.url, "--detector", str(patterns), "-f", name])
            for name in SCAN_REPORTS
        ]
    assert all(headers["Authorization"] == "Bearer s3cret" for _, _, headers in server.asked)
    assert all("s3cret" not in each.output for each in told)
    assert "in the clear" in told[list(SCAN_REPORTS).index("json")].output


def test_a_report_knows_a_served_model_by_its_address(patterns: Path, tmp_path: Path) -> None:
    with serving(classifier()) as server:
        for name in SCAN_REPORTS:
            told = CliRunner().invoke(
                app, ["scan", server.url, "--detector", str(patterns), "-f", name, "--fpr", "0.5"]
            )
            assert told.exit_code in (0, 1), told.output
            if name == "json":
                report = json.loads(told.output)
    jsonschema.validate(report, json.loads(json_schema()))
    (entry,) = report["results"]
    assert (entry["path"], entry["model_sha256"]) == (server.url, None)
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert Baseline.read(tmp_path / "report.json").accepted == {}


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"<html>", "no JSON (got <html>)"),
    "deep": (b"[" * 200_000, "no JSON"),
    "a list": ([1], "no JSON object"),
    "no outputs": ({}, "no tensor of this name"),
    "names": ({"outputs": [{"name": 3}]}, "no tensor of this name"),
    "shape": ({"outputs": [{"name": "logits", "shape": [9, 4], "data": []}]}, "another shape"),
    "too little": ({"outputs": [{"name": "logits", "shape": [2, 4], "data": [1]}]}, "do not fill"),
    "no numbers": (
        {"outputs": [{"name": "logits", "shape": [2, 4], "data": [["a"] * 4] * 2}]},
        "do not fill",
    ),
    "ragged": (
        {"outputs": [{"name": "logits", "shape": [2, 4], "data": [[1, 2], [3]]}]},
        "do not fill",
    ),
    "a redirect": (Reply(302, b"", {"Location": "http://elsewhere.example/"}), "redirects"),
    "no access": (Reply(401, b""), f"set {TOKEN_VARIABLE}"),
    "forbidden": (Reply(403, b"no"), "refuses access"),
    "not found": (Reply(404, b"no"), "no such model"),
    "broken": (Reply(500, {"error": "out of cheese"}, {"Retry-After": "0"}), "out of cheese"),
    "an unfit model": (Reply(501, b"no"), "can't run this model"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_answers_are_told_as_they_are(wrong: tuple[Any, str], patterns: Path) -> None:
    said, why = wrong
    content = said.content if isinstance(said, Reply) else said

    def amend(number: int, path: str, right: Any) -> Any:
        if not path.endswith("/infer") or isinstance(said, Reply):
            return said if isinstance(said, Reply) else right
        if isinstance(content, dict) and content.get("outputs"):
            tensor = content["outputs"][0]
            if tensor.get("shape") == [2, 4]:  # what was asked for, but for the data
                return {"outputs": [{**tensor, "shape": right["outputs"][0]["shape"]}]}
        return content

    with serving(classifier(), amend=amend) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Skipped if "can't run" in why else Failed), result
    text = result.reason if isinstance(result, Skipped) else result.error
    assert why in text
    assert server.url not in text  # the report names it already


METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"inputs": None}, "does not say what the model takes"),
    "two inputs": (
        {"inputs": [{"name": "a", "shape": [-1, 3, 6, 5], "datatype": "FP32"}] * 2},
        "more than one input",
    ),
    "flat": (
        {"inputs": [{"name": "a", "shape": [-1, 784], "datatype": "FP32"}]},
        "takes no images",
    ),
    "text": (
        {"inputs": [{"name": "a", "shape": [-1, 3, 6, 5], "datatype": "BYTES"}]},
        "takes no images",
    ),
    "boxes": (
        {"outputs": [{"name": "a", "shape": [-1, 9, 4], "datatype": "FP32"}]},
        "not a classifier",
    ),
    "another shape": (
        {"inputs": [{"name": "images", "shape": [-1, 1, 99, 99], "datatype": "FP32"}]},
        "1x99x99",
    ),
}


@pytest.mark.parametrize("case", METADATA.values(), ids=METADATA)
def test_models_of_other_kinds_are_skipped(
    case: tuple[dict[str, Any], str], patterns: Path
) -> None:
    changes, why = case

    def amend(number: int, path: str, right: Any) -> Any:
        return right if path.endswith("/infer") else {**right, **changes}

    with serving(classifier(), amend=amend) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Skipped), result
    assert why in result.reason


def test_outputs_that_are_no_numbers_fail(patterns: Path) -> None:
    def amend(number: int, path: str, right: Any) -> Any:
        if path.endswith("/infer"):
            tensor = right["outputs"][0]
            tensor["data"] = [float("nan")] * len(tensor["data"])
        return right

    with serving(classifier(), amend=amend) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Failed)
    assert "not numbers" in result.error


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    drip(connection)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    drip(connection)


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def promise(connection: socket.socket) -> None:
    """Say that an answer will come, and never stop saying so."""
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


@pytest.mark.parametrize("answer", [drip_body, drip_headers, promise])
def test_a_server_that_never_ends_is_given_up(
    answer: Callable[[socket.socket], None], patterns: Path
) -> None:
    started = time.monotonic()
    with raw_server(answer) as url:
        result = only(url, patterns, limits=Limits(wall_seconds=1))
    assert isinstance(result, Failed)
    assert "than the limit of 1 seconds" in result.error
    assert time.monotonic() - started < 15


def test_an_answer_that_takes_too_much_memory_fails_alone(patterns: Path, tmp_path: Path) -> None:
    file = save(classifier(), tmp_path / "a.onnx")
    limits = Limits(memory_mib=256)
    with serving(classifier(), amend=lambda *_: b"[" + b"[]," * 5_000_000 + b"[]]") as server:
        greedy, plain = scan([server.url, file], detector=patterns, limits=limits)
    assert isinstance(greedy, Failed)
    assert "needs more memory than the limit of 256 MiB" in greedy.error
    assert isinstance(plain, Scored), plain


def test_all_that_was_asked_is_counted_where_classes_are_put_in_order() -> None:
    with serving(classifier()) as server:
        client = InferenceClient(server.url)
        model = connect(client, read_metadata(client.metadata(), server.url), Preprocessing())
        ordered = OrderedModel(model, [1, 0, 3, 2])
        ordered(np.zeros((5, 3, 6, 5), np.float32))
    assert any("5 images in 1 requests" in note for note in ordered.notes), ordered.notes


def test_of_several_outputs_the_one_with_the_detectors_classes_is_read(
    patterns: Path,
) -> None:
    other = {"name": "embedding", "datatype": "FP32", "shape": [-1, 512]}

    def amend(number: int, path: str, right: Any) -> Any:
        return (
            right if path.endswith("/infer") else {**right, "outputs": [other, *right["outputs"]]}
        )

    with serving(classifier(), amend=amend) as server:
        result = only(server.url, patterns)
    assert isinstance(result, Scored), result
    assert "of 2 outputs, 'logits' was read" in result.notes


def test_where_sizes_are_open_the_server_says_which_it_takes(tmp_path: Path) -> None:
    large = detector(replace(SPEC, height=12, width=10))
    for name, known in {"large": large, "small": detector()}.items():
        (tmp_path / f"{name}.litmus").write_bytes(known.to_bytes())

    with serving(classifier(sizes=("c", "h", "w"))) as server:
        (result,) = scan([server.url], detector=Candidates.bundled(tmp_path))
    assert isinstance(result, Scored), result
    assert result.detector == "small"


@pytest.mark.parametrize(
    "url",
    ["http://host/v2/models/a?token=s3cret", "http://me:s3cret@host/v2/models/a"],
)
def test_a_secret_in_an_address_is_in_no_report(url: str, patterns: Path) -> None:
    for name in SCAN_REPORTS:
        told = CliRunner().invoke(app, ["scan", url, "--detector", str(patterns), "-f", name])
        assert told.exit_code == 2
        assert "s3cret" not in told.output


def test_a_token_that_no_header_holds_fails_the_served_model_alone(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret\nX: 1")
    file = save(classifier(), tmp_path / "a.onnx")
    failed, scored = scan(["http://host/v2/models/a", file], detector=patterns)
    assert isinstance(failed, Failed)
    assert TOKEN_VARIABLE in failed.error
    assert "s3cret" not in failed.error
    assert isinstance(scored, Scored)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/v2/models/",
        "http://host/model.onnx",
        "http:///v2/models/a",
        "http://host:99999/v2/models/a",
        "http://host/v2/models/a/versions/",
        "http://host/v2/models/a/infer",
        "http://host/v2/models/a?b=c",
    ],
)
def test_other_addresses_fail(url: str, patterns: Path) -> None:
    assert address_fault(url)
    assert isinstance(only(url, patterns), Failed)


def test_a_password_in_an_address_is_not_repeated(patterns: Path) -> None:
    result = only("http://me:s3cret@host/v2/models/a", patterns)
    assert isinstance(result, Failed)
    assert TOKEN_VARIABLE in result.error
    assert "s3cret" not in str(result)


@pytest.mark.parametrize(
    "url",
    ["http://a/v2/models/b", "https://a:1/x/v2/models/b/versions/3", "http://[::1]/v2/models/b/"],
)
def test_addresses(url: str) -> None:
    assert address_fault(url) is None


def test_a_confined_process_knows_whom_to_trust(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    with serving(classifier(), certificate=certificate) as server:
        distrusted = only(server.url, patterns)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusted = only(server.url, patterns)
        named = only(server.url.replace("127.0.0.1", "localhost"), patterns)
    assert isinstance(trusted, Scored), trusted
    assert isinstance(distrusted, Failed)
    assert "certificate is not trusted" in distrusted.error
    assert isinstance(named, Failed)
    assert "Hostname mismatch" in named.error


def test_a_version_is_asked_for(patterns: Path) -> None:
    with serving(classifier()) as server:
        result = only(f"{server.url}/versions/7", patterns)
    assert isinstance(result, Scored), result
    assert {path for path, _, _ in server.asked} == {
        "/v2/models/digits/versions/7",
        "/v2/models/digits/versions/7/infer",
    }


def test_served_models_and_files_keep_their_order(patterns: Path, tmp_path: Path) -> None:
    file = save(classifier(), tmp_path / "a.onnx")
    with serving(classifier()) as server:
        results = list(scan([server.url, file, server.url], detector=patterns))
    assert [str(r.path) for r in results] == [server.url, str(file), server.url]
    assert len({round(r.score, 4) for r in results if isinstance(r, Scored)}) == 1
