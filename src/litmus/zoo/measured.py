"""What was read of a zoo's models and takes long, kept beside them, so that it is read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from litmus.artifacts import canonical_json, read_header, write_atomically
from litmus.errors import ZooError
from litmus.zoo.store import ZooEntry

__all__ = ["remembered"]

_FOLDER: Final = "measured"


def remembered(
    entry: ZooEntry, key: Mapping[str, Any], read: Callable[[], list[float]]
) -> list[float]:
    """Return the numbers that `read` gives for a model, or gave before.

    `key` is all that they depend on besides the model. A file that is damaged is read anew, and a
    zoo that can't be written to keeps nothing.
    """
    weights = read_header(entry.path, ZooError)["tensors_sha256"]
    whole = canonical_json({"model": entry.id, "weights": weights, **key})
    name = hashlib.sha256(whole.encode()).hexdigest()[:32]
    path = entry.path.parent / _FOLDER / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if canonical_json(content["key"]) == whole:
            return [float(number) for number in content["numbers"]]
    numbers = read()
    with contextlib.suppress(OSError):
        content = {"key": json.loads(whole), "numbers": numbers}
        write_atomically(path, json.dumps(content))
    return numbers
