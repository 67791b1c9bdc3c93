"""Which network a file of bare weights belongs to, as `--architecture` says it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from litmus.errors import UsageError

__all__ = ["StatedNetwork"]

_WHERE: Final = "--architecture"
_FORMS: Final = "NAME, NAME:option=value,... or MODULE:FUNCTION[:option=value,...]"
_NAME: Final = re.compile(r"\w+")
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# A comma inside a value, as in channels=[16,32], has no name behind it.
_BETWEEN_OPTIONS: Final = re.compile(r",(?=\s*[^\W\d]\w*=)")


@dataclass(frozen=True, kw_only=True)
class StatedNetwork:
    """A network by name, with options.

    Without `function`, `name` is one of Litmus' architectures; otherwise it is a module of the
    user's own, whose `function` is called with the options and returns the network. `text` is how
    it was said.
    """

    text: str
    name: str
    function: str | None
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, *, trust_code: bool = False) -> Self:
        """Read ``resnet:width=16,blocks=2`` or ``module:function:option=value``.

        Values are JSON, or else strings. Raises UsageError for other texts, and for code of the
        user's own unless `trust_code`. Nothing is imported here.
        """
        name, *rest = text.split(":", 2)
        own = bool(rest) and "=" not in rest[0]
        function = rest.pop(0) if own else None
        wanted = _MODULE if own else _NAME
        if not wanted.fullmatch(name) or (own and not _MODULE.fullmatch(str(function))):
            raise UsageError("not an architecture", expected=_FORMS, got=text, where=_WHERE)
        if own and not trust_code:
            raise UsageError(
                f"{name}:{function} is code outside of Litmus, which would be run",
                expected="--trust-code beside it, where you trust that code",
                where=_WHERE,
            )
        options = _options(":".join(rest), text) if rest else {}
        return cls(text=text, name=name, function=function, options=options)


def _options(listed: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in _BETWEEN_OPTIONS.split(listed):
        key, equals, value = pair.strip().partition("=")
        if not equals or not _NAME.fullmatch(key) or key == "name" or key in options:
            raise UsageError("not an option", expected=_FORMS, got=pair or text, where=_WHERE)
        try:
            options[key] = json.loads(value)
        except (ValueError, RecursionError):
            options[key] = value
    return options
