"""The processes that make models: specs come in on standard input, summaries go out, as JSON.

A line is what is made at a time: one model, or a stack of them. Each process runs one thread, and
ends when its standard input does, so that no worker outlives a builder that was killed by more than
the models in hand.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from litmus.datasets import load_images
from litmus.errors import LitmusError
from litmus.zoo.ancestors import kept_in
from litmus.zoo.groups import Seat
from litmus.zoo.places import open_place
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import build_models

__all__ = ["main", "serve"]

Setup = Mapping[str, Any]
Maker = Callable[[Sequence[Seat]], list[dict[str, Any]]]


def main() -> None:
    """Train models."""
    serve(_trainer)


def serve(prepare: Callable[[Setup], Maker]) -> None:
    """Serve one builder: the first line is the set-up for `prepare`, each later one a group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the replies
    torch.set_num_threads(1)
    setup = json.loads(sys.stdin.readline())
    try:
        make = prepare(setup)
        for line in sys.stdin:
            _reply(replies, {"models": make([Seat.from_json(seat) for seat in json.loads(line)])})
    except LitmusError as fault:
        _reply(replies, {"error": str(fault)})


def _trainer(setup: Setup) -> Maker:
    dataset = load_images(setup["dataset"], data=setup["data"], **setup["options"])
    place = open_place(setup["place"])
    plan = StackPlan.from_json(setup["plan"])

    def make(group: Sequence[Seat]) -> list[dict[str, Any]]:
        with place.holding() as folder:
            return build_models(group, dataset, folder, plan, kept_in(place))

    return make


def _reply(replies: Any, message: dict[str, Any]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
