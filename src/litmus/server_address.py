"""Where a server runs a model, and the token that goes there; neither tells a secret when wrong."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from litmus.errors import UsageError

__all__ = ["TOKEN_VARIABLE", "address_fault", "bearer_token", "shown_address"]

TOKEN_VARIABLE: Final = "LITMUS_BEARER_TOKEN"


def bearer_token() -> str:
    """Return the token in `$LITMUS_BEARER_TOKEN`, empty where there is none.

    Raises UsageError, which does not repeat it, where no header can hold it.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            "no token: it has spaces, line breaks or letters that no header can hold",
            where=TOKEN_VARIABLE,
        )
    return token


def address_fault(url: str) -> str | None:
    """Return what is wrong with the address of a served model, None if nothing is.

    An address is ``http[s]://HOST[:PORT][/...]/v2/models/NAME[/versions/VERSION]``.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return "its port or host is impossible"
    if parts.username is not None or parts.password is not None:
        return f"a name and password in it would be told in reports: use {TOKEN_VARIABLE}"
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "it has letters that are written %.. in an address"
    if not parts.hostname or not port_is_fine:
        return "it names no host"
    if parts.query or parts.fragment:
        return f"it has a query or a fragment; a token belongs into {TOKEN_VARIABLE}"
    _, found, model = parts.path.rstrip("/").partition("/v2/models/")
    steps = model.split("/")
    versioned = len(steps) == 3 and steps[1] == "versions"
    if not found or not all(steps) or not (len(steps) == 1 or versioned):
        return "expected http://HOST:PORT/v2/models/NAME or .../NAME/versions/VERSION"
    return None


def shown_address(url: str) -> str:
    """Return what may be told of an address that is wrong: neither passwords nor a query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # Where it can't be taken apart, a password may be anywhere.
        return f"{url.partition(':')[0]}://..."
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rpartition('@')[2]}"
