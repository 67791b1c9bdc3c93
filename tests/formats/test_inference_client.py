from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from litmus.errors import ModelError, UsageError
from litmus.formats import inference_client
from litmus.formats.inference_client import InferenceClient
from litmus.server_address import TOKEN_VARIABLE, address_fault, bearer_token, shown_address
from tests.formats.onnx_models import classifier
from tests.formats.served_models import Reply, make_certificate, raw_server, serving

ONE_IMAGE = {
    "inputs": [
        {"name": "images", "shape": [1, 3, 6, 5], "datatype": "FP32", "data": [0.5] * 90},
    ]
}


def client_of(url: str, **options: Any) -> tuple[InferenceClient, list[float]]:
    """A client that does not sleep, and how long it would have slept."""
    pauses: list[float] = []
    return InferenceClient(url, sleep=pauses.append, **options), pauses


def test_nobody_at_home() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client, pauses = client_of(f"http://127.0.0.1:{port}/v2/models/none")
    with pytest.raises(ModelError, match=r"can't be reached \(5 tries\).*refused"):
        client.metadata()
    least = (0.25, 0.5, 1.0, 2.0)
    assert all(low <= pause <= 2 * low for low, pause in zip(least, pauses, strict=True)), pauses


def test_the_last_fault_is_told_where_no_time_is_left() -> None:
    with serving(classifier(), amend=lambda *_: Reply(503, b"warming up")) as server:
        client, pauses = client_of(server.url, seconds=0.2)
        with pytest.raises(ModelError, match=r"no time is left of the limit of 0.2 .*warming up"):
            client.metadata()
    assert pauses == []


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_when_to_come_back(as_date: bool) -> None:
    then = datetime.now(UTC) + timedelta(seconds=20)
    later = format_datetime(then, usegmt=True) if as_date else "20"

    def amend(number: int, path: str, right: Any) -> Any:
        return right if number > 1 else Reply(429, b"", {"Retry-After": later})

    with serving(classifier(), amend=amend) as server:
        client, pauses = client_of(server.url)
        assert client.metadata()["name"] == "digits"
    assert pauses == [pytest.approx(20, abs=5)]


def test_a_server_that_wants_to_be_left_alone_for_long_is() -> None:
    busy = Reply(429, b"quota", {"Retry-After": "3600"})
    with serving(classifier(), amend=lambda *_: busy) as server:
        client, pauses = client_of(server.url)
        with pytest.raises(ModelError, match=r"again in 3600 s; no time .*HTTP 429: quota"):
            client.metadata()
    assert pauses == []


def test_images_that_are_sent_again_are_counted_again() -> None:
    def busy(number: int, path: str, right: Any) -> Any:
        return Reply(503) if number < 3 else right

    with serving(classifier(), amend=busy) as server:
        client, _ = client_of(server.url)
        client.infer(ONE_IMAGE, 1)
    assert (client.images, client.requests, server.images) == (3, 3, 3)


def test_an_answer_may_not_be_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_client, "_MOST_BYTES", 100_000)
    with serving(classifier(), amend=lambda *_: b" " * 200_000) as server:
        client, _ = client_of(server.url)
        with pytest.raises(ModelError, match=r"too long \(expected at most 100000 bytes\)"):
            client.metadata()


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"SSH-2.0-OpenSSH_9.6\r\n", b""],
    ids=["cut short", "another protocol", "nothing"],
)
def test_answers_that_break_off_are_asked_for_again(said: bytes) -> None:
    with raw_server(lambda connection: connection.sendall(said)) as url:
        client, pauses = client_of(url)
        with pytest.raises(ModelError, match=r"(breaks off|can't be reached).*\(5 tries\)"):
            client.metadata()
    assert len(pauses) == 4


@pytest.mark.parametrize(
    "reply",
    [
        Reply(401, b"no access with s3cret"),
        Reply(302, b"", {"Location": "http://elsewhere.example/?token=s3cret"}),
        b"you said s3cret",
        ["s3cret"],
    ],
    ids=["refusal", "redirect", "no JSON", "a list"],
)
def test_a_token_that_the_server_repeats_is_not_told(reply: Any) -> None:
    with serving(classifier(), amend=lambda *_: reply) as server:
        client, _ = client_of(server.url, token="s3cret")
        with pytest.raises(ModelError) as told:
            client.metadata()
    assert "s3cret" not in str(told.value)
    assert "[token]" in str(told.value)


@pytest.mark.parametrize("token", ["s3cret\nX-Evil: 1", "s3 cret", "s3crét"])
def test_a_token_that_no_header_holds_is_not_told(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(UsageError) as told:
        bearer_token()
    assert "s3" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:s3cret@host/v2/models/a", "http://host/v2/models/a"),
        ("http://s3cret@host:8080/v2/models/a", "http://host:8080/v2/models/a"),
        ("http://host/v2/models/a?token=s3cret", "http://host/v2/models/a"),
        ("http://host/v2/models/a#s3cret@b", "http://host/v2/models/a"),
        ("https://me:s3c#ret@host/v2/models/a", "https://..."),
        ("https://me:s3c/ret@host/v2/models/a", "https://..."),
    ],
)
def test_wrong_addresses_are_told_without_secrets(url: str, shown: str) -> None:
    assert address_fault(url)
    assert shown_address(url) == shown


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def over_tls(certificate: tuple[Path, Path]) -> Iterator[str]:
    """The address of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    body = json.dumps({"name": "digits"}).encode()

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as safe:
            safe.recv(65536)
            safe.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with raw_server(answer) as url:
        yield url.replace("http:", "https:")


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(over_tls: str) -> None:
    client, pauses = client_of(over_tls, token="s3cret")
    with pytest.raises(ModelError, match=r"certificate is not trusted.*self.signed"):
        client.metadata()
    assert pauses == []


def test_an_authority_of_ones_own_is_named_by_the_environment(
    over_tls: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    client, _ = client_of(over_tls, token="s3cret")
    assert client.metadata() == {"name": "digits"}
    assert client.notes == []  # nothing went in the clear
