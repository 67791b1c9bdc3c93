"""The processes that make models: specs come in on standard input, summaries go out, as JSON.

Each runs one thread, and ends when its standard input does, so that no worker outlives a builder
that was killed by more than the model in hand.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from litmus.datasets import load_images
from litmus.errors import LitmusError
from litmus.zoo.places import open_place
from litmus.zoo.spec import ModelSpec
from litmus.zoo.trainer import build_model

__all__ = ["main", "serve"]

Setup = Mapping[str, Any]
Maker = Callable[[ModelSpec], dict[str, Any]]


def main() -> None:
    """Train models."""
    serve(_trainer)


def serve(prepare: Callable[[Setup], Maker]) -> None:
    """Serve one builder: the first line is the set-up for `prepare`, each later one a spec."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the replies
    torch.set_num_threads(1)
    setup = json.loads(sys.stdin.readline())
    try:
        make = prepare(setup)
        for line in sys.stdin:
            _reply(replies, make(ModelSpec.from_json(json.loads(line))))
    except LitmusError as fault:
        _reply(replies, {"error": str(fault)})


def _trainer(setup: Setup) -> Maker:
    dataset = load_images(setup["dataset"], data=setup["data"], **setup["options"])
    place = open_place(setup["place"])

    def make(spec: ModelSpec) -> dict[str, Any]:
        with place.holding() as folder:
            return build_model(spec, dataset, folder)

    return make


def _reply(replies: Any, message: dict[str, Any]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
