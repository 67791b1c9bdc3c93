"""A client of the Open Inference Protocol in the standard library: scanning needs no other.

What comes back is a stranger's: it is bounded in size and in time, and redirects, which would take
a token elsewhere, are not followed.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from litmus.errors import ModelError, UnsupportedModelError

__all__ = ["TOKEN_VARIABLE", "InferenceClient", "RefusedError", "address_fault"]

TOKEN_VARIABLE: Final = "LITMUS_BEARER_TOKEN"
_MOST_BYTES: Final = 16 * 1024 * 1024
_PIECE: Final = 65536
_TRIES: Final = 5
_FIRST_WAIT: Final = 0.5
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SAID: Final = 200
_REASONS: Final[Mapping[int, str]] = {
    401: f"the server wants a token: set {TOKEN_VARIABLE}",
    403: "the server refuses access",
    404: "the server has no such model, or does not speak the Open Inference Protocol",
}


class RefusedError(ModelError):
    """The server calls a request wrong (HTTP 400, 413 or 422): it may take fewer images."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """Follow none: urllib raises the HTTPError itself then."""


def address_fault(url: str) -> str | None:
    """Return what is wrong with the address of a served model, None if nothing is.

    An address is ``http[s]://HOST[:PORT][/...]/v2/models/NAME[/versions/VERSION]``.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return "its port or host is impossible"
    if parts.username or parts.password:
        return f"a name and password in it would be told in reports: use {TOKEN_VARIABLE}"
    if not parts.hostname or not port_is_fine:
        return "it names no host"
    if parts.query or parts.fragment:
        return "it has a query or a fragment"
    _, found, model = parts.path.rstrip("/").partition("/v2/models/")
    steps = model.split("/")
    versioned = len(steps) == 3 and steps[1] == "versions"
    if not found or not all(steps) or not (len(steps) == 1 or versioned):
        return "expected http://HOST:PORT/v2/models/NAME or .../NAME/versions/VERSION"
    return None


class InferenceClient:
    """Asks one model at `address`, see `address_fault`.

    Everything together takes at most `seconds`, and one request no longer than what is left of
    them. Requests that fail for want of a connection, or since the server is busy, are sent again,
    five times in all, with waits that double, or as long as the server asks. The token in
    `$LITMUS_BEARER_TOKEN`, if there is one, goes with every request and into no message.
    """

    def __init__(
        self, address: str, *, seconds: float = 60.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.address = address.rstrip("/")
        self.notes: list[str] = []
        self._deadline, self._seconds = time.monotonic() + seconds, seconds
        self._sleep = sleep
        self._opener = build_opener(_NoRedirects)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token := os.environ.get(TOKEN_VARIABLE, "").strip():
            self._headers["Authorization"] = f"Bearer {token}"
            if self.address.startswith("http:"):
                self.notes.append("the bearer token went over the network in the clear (http)")

    def metadata(self) -> Mapping[str, Any]:
        """Return what the server says of the model; raises ModelError where it says nothing."""
        return self._exchange(self.address, None)

    def infer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to an inference request.

        Raises ModelError, or RefusedError where the server calls the request wrong.
        """
        return self._exchange(f"{self.address}/infer", json.dumps(request).encode())

    def _exchange(self, url: str, body: bytes | None) -> Mapping[str, Any]:
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                return self._parsed(self._sent(url, body))
            except HTTPError as fault:
                with fault:
                    if last or fault.code not in _TRY_AGAIN:
                        raise self._refusal(fault, attempt) from fault
                    wait = _asked_to_wait(fault)
            except (URLError, OSError, http.client.HTTPException) as fault:
                if last or self._left() <= 0:
                    raise self._unreachable(fault, attempt) from fault
                wait = None
            # Half of it at random, so that many clients do not come back at once.
            backoff = _FIRST_WAIT * 2**attempt * (0.5 + random.random() / 2)
            pause = backoff if wait is None else wait
            if pause >= self._left():
                raise self._too_long()
            self._sleep(pause)
        raise AssertionError  # the last attempt returns or raises

    def _sent(self, url: str, body: bytes | None) -> bytes:
        if self._left() <= 0:
            raise self._too_long()
        request = Request(url, data=body, headers=self._headers)
        said = bytearray()
        with self._opener.open(request, timeout=self._left()) as reply:
            # In pieces: a time-out is for each of them, and a server may drip.
            while piece := reply.read1(_PIECE):
                said += piece
                if len(said) > _MOST_BYTES:
                    raise ModelError(
                        "the server's answer is too long",
                        expected=f"at most {_MOST_BYTES} bytes",
                        where=self.address,
                    )
                if self._left() <= 0:
                    raise self._too_long()
        return bytes(said)

    def _parsed(self, said: bytes) -> Mapping[str, Any]:
        try:
            content = json.loads(said)
        except (ValueError, RecursionError) as fault:
            raise ModelError(
                "the server's answer is no JSON", got=_shown(said), where=self.address
            ) from fault
        if not isinstance(content, dict):
            raise ModelError(
                "the server's answer is no JSON object", got=_shown(said), where=self.address
            )
        return content

    def _refusal(self, fault: HTTPError, attempt: int) -> ModelError:
        code = fault.code
        told = f"HTTP {code}: {_shown(fault.read(_PIECE))}".rstrip(": ")
        if 300 <= code < 400:
            return ModelError(
                "the server redirects, which could take a token elsewhere: name the place itself",
                got=f"HTTP {code} to {_place(fault)}",
                where=self.address,
            )
        if code in (400, 413, 422):
            return RefusedError("the server calls a request wrong", got=told, where=self.address)
        if code == 501:
            return UnsupportedModelError(
                "the server can't run this model", got=told, where=self.address
            )
        tries = f" after {attempt + 1} tries" if attempt else ""
        reason = _REASONS.get(code, f"the server failed{tries}")
        return ModelError(reason, got=told, where=self.address)

    def _unreachable(self, fault: Exception, attempt: int) -> ModelError:
        cause = getattr(fault, "reason", fault)
        if isinstance(cause, TimeoutError):
            return self._too_long()
        text = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
        return ModelError(
            f"the server can't be reached ({attempt + 1} tries)",
            got=str(text or cause or type(cause).__name__)[:_SAID],
            where=self.address,
        )

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _too_long(self) -> ModelError:
        return ModelError(
            f"the server took longer than the limit of {self._seconds:g} seconds",
            where=self.address,
        )


def _asked_to_wait(fault: HTTPError) -> float | None:
    """The seconds in Retry-After; a date there, or nonsense, is as if it were absent."""
    try:
        seconds = float(fault.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _shown(said: bytes) -> str:
    return " ".join(said[:_SAID].decode("utf-8", "replace").split())


def _place(fault: HTTPError) -> str:
    return str(fault.headers.get("Location", "nowhere"))[:_SAID]
