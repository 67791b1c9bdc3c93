"""The process that trains models: specs come in on standard input, summaries go out, as JSON.

It runs one thread, and it ends when its standard input does, so that no worker outlives a builder
that was killed by more than the model in hand.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from litmus.datasets import load_images
from litmus.errors import LitmusError
from litmus.zoo.spec import ModelSpec
from litmus.zoo.trainer import build_model

__all__ = ["main"]


def main() -> None:
    """Serve one builder: the first line is the set-up, each later one a spec."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the replies
    torch.set_num_threads(1)
    setup = json.loads(sys.stdin.readline())
    try:
        dataset = load_images(setup["dataset"], data=setup["data"], **setup["options"])
        for line in sys.stdin:
            spec = ModelSpec.from_json(json.loads(line))
            _reply(replies, build_model(spec, dataset, Path(setup["folder"])))
    except LitmusError as fault:
        _reply(replies, {"error": str(fault)})


def _reply(replies: Any, message: dict[str, Any]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
