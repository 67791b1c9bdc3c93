"""Scanning a model that a server runs: asked from here, since there is no file to be afraid of.

What comes back is JSON of a bounded size, of which numbers are read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from litmus.detectors import Detector
from litmus.formats.inference_client import InferenceClient
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.served import connect, read_metadata
from litmus.scanning.child import answer_of, score_model

__all__ = ["ask_server"]


def ask_server(
    address: str,
    request: Mapping[str, Any],
    detectors: Mapping[str, Detector],
    *,
    seconds: float,
) -> dict[str, Any]:
    """Return what a mother says of a file: the reply to a request, and the time that it took.

    All requests together take at most `seconds`.
    """
    started = time.perf_counter()
    client = InferenceClient(address, seconds=seconds)

    def told() -> dict[str, object]:
        tensors = read_metadata(client.metadata(), client.address)
        stated = Preprocessing.from_options(**request["preprocessing"])
        return score_model(partial(connect, client, tensors, stated), request, detectors)

    reply = json.dumps(answer_of(told, client.address))
    return {"reply": reply, "sha256": None, "seconds": time.perf_counter() - started}
