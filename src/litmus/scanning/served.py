"""Scanning a model that a server runs, in a process that may use the network and reads no model.

What comes back is JSON of a bounded size, of which numbers are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from litmus.formats.inference_client import InferenceClient
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.served import connect, read_metadata
from litmus.models import Model

__all__ = ["server_loader"]


def server_loader(request: Mapping[str, Any]) -> Callable[..., Model]:
    """Return what connects to a model, having asked the server for its metadata.

    The request has its address as `path`, a `token`, and the `seconds` that all may take.
    """
    client = InferenceClient(request["path"], token=request["token"], seconds=request["seconds"])
    tensors = read_metadata(client.metadata(), client.address)
    return partial(connect, client, tensors, Preprocessing.from_options(**request["preprocessing"]))
