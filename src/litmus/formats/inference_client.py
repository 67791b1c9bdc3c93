"""A client of the Open Inference Protocol in the standard library: scanning needs no other.

What comes back is a stranger's: it is bounded in size and in time, and redirects, which would take
a token elsewhere, are not followed. A server that says a byte now and then can keep a call waiting
for ever in its headers: whoever calls runs this in a process that is ended.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from litmus.errors import ModelError, UnsupportedModelError
from litmus.server_address import TOKEN_VARIABLE

__all__ = ["InferenceClient", "RefusedError"]

_MOST_BYTES: Final = 16 * 1024 * 1024
_PIECE: Final = 65536
_TRIES: Final = 5
_FIRST_WAIT: Final = 0.5
_MARGIN: Final = 0.1
"""Of the time limit, for telling what went wrong before it is over."""
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SAID: Final = 200
_HIDDEN: Final = "[token]"
_REASONS: Final[Mapping[int, str]] = {
    401: f"the server wants a token, or another one: set {TOKEN_VARIABLE}",
    403: "the server refuses access",
    404: "the server has no such model, or does not speak the Open Inference Protocol",
}


class RefusedError(ModelError):
    """The server calls a request wrong (HTTP 400, 413 or 422): it may take fewer images."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """Follow none: urllib raises the HTTPError itself then."""


class InferenceClient:
    """Asks one model at `address`, see `address_fault`.

    Everything together takes at most `seconds`, and one request no longer than what is left of
    them. Requests that fail for want of a connection, or since the server is busy, are sent again,
    five times in all, with waits that double, or as long as the server asks. The `token`, if there
    is one, goes with every request and into no message, not even where the server repeats it.
    `images` and `requests` count what was sent for inference, what was sent again, too.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address.rstrip("/")
        self.images = self.requests = 0
        self.notes: list[str] = []
        self._token = token
        self._seconds = seconds
        self._deadline = time.monotonic() + (1 - _MARGIN) * seconds
        self._sleep = sleep
        self._opener = build_opener(_NoRedirects)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
            if self.address.startswith("http:"):
                self.notes.append("the bearer token went over the network in the clear (http)")

    def metadata(self) -> Mapping[str, Any]:
        """Return what the server says of the model; raises ModelError where it says nothing."""
        return self._exchange(self.address, None, 0)

    def infer(self, request: Mapping[str, Any], num_images: int) -> Mapping[str, Any]:
        """Return the answer to an inference request with so many images.

        Raises ModelError, or RefusedError where the server calls the request wrong.
        """
        return self._exchange(f"{self.address}/infer", json.dumps(request).encode(), num_images)

    def _exchange(self, url: str, body: bytes | None, num_images: int) -> Mapping[str, Any]:
        for attempt in range(_TRIES):
            wait, again = None, True
            try:
                return self._parsed(self._sent(url, body, num_images))
            except HTTPError as fault:
                with fault:
                    error = self._refusal(fault, attempt)
                    wait, again = _asked_to_wait(fault), fault.code in _TRY_AGAIN
            except (OSError, http.client.HTTPException) as fault:
                error = self._unreachable(fault, attempt)
                again = not _is_distrust(fault)
            # Half of it at random, so that many clients do not come back at once.
            backoff = _FIRST_WAIT * 2**attempt * (0.5 + random.random() / 2)
            pause = backoff if wait is None else wait
            if not again or attempt == _TRIES - 1:
                raise error
            if pause >= self._left():
                raise self._out_of_time(error, wait)
            self._sleep(pause)
        raise AssertionError  # the last attempt returns or raises

    def _sent(self, url: str, body: bytes | None, num_images: int) -> bytes:
        if self._left() <= 0:
            raise self._too_long()
        if body is not None:
            self.images, self.requests = self.images + num_images, self.requests + 1
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
            if reply.length:
                raise http.client.IncompleteRead(b"", reply.length)
        return self._hidden(bytes(said))

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
        code, said = fault.code, b""
        # One piece of it: what it says beside the code may drip, too.
        with contextlib.suppress(OSError, http.client.HTTPException):
            said = getattr(fault.fp, "read1", fault.read)(_PIECE)
        told = f"HTTP {code}: {_shown(self._hidden(said))}".rstrip(": ")
        if 300 <= code < 400:
            place = str(fault.headers.get("Location", "nowhere")).encode()
            return ModelError(
                "the server redirects, which could take a token elsewhere: name the place itself",
                got=f"HTTP {code} to {_shown(self._hidden(place))}",
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
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(
                "the server's certificate is not trusted; SSL_CERT_FILE may name an authority's",
                got=cause.verify_message,
                where=self.address,
            )
        if isinstance(cause, http.client.HTTPException):
            what, text = "the server's answer breaks off, or is no HTTP", type(cause).__name__
        else:
            what = "the server can't be reached"
            text = str(getattr(cause, "strerror", None) or cause)
        tries = "1 try" if not attempt else f"{attempt + 1} tries"
        return ModelError(
            f"{what} ({tries})",
            got=(text or type(cause).__name__)[:_SAID],
            where=self.address,
        )

    def _hidden(self, said: bytes) -> bytes:
        """What a server said, without the token, which it may repeat."""
        token = self._token.encode()
        return said.replace(token, _HIDDEN.encode()) if token else said

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _out_of_time(self, last: ModelError, asked: float | None) -> ModelError:
        """The last fault, where there is no time to try again."""
        wanted = f", and wants to be asked again in {asked:g} s" if asked else ""
        return ModelError(
            f"{last.what}{wanted}; no time is left of the limit of {self._seconds:g} seconds",
            expected=last.expected,
            got=last.got,
            where=self.address,
        )

    def _too_long(self) -> ModelError:
        return ModelError(
            f"the server took longer than the limit of {self._seconds:g} seconds",
            where=self.address,
        )


def _is_distrust(fault: Exception) -> bool:
    """Whether a certificate is not trusted, which no second try mends."""
    return isinstance(getattr(fault, "reason", fault), ssl.SSLCertVerificationError)


def _asked_to_wait(fault: HTTPError) -> float | None:
    """The seconds until when Retry-After says, a number or a date; nonsense is as if absent."""
    text = str(fault.headers.get("Retry-After", ""))
    try:
        seconds = float(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            return None
        aware = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _shown(said: bytes) -> str:
    return " ".join(said[:_SAID].decode("utf-8", "replace").split())
