"""What a Ray worker does: one task makes a few models."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import litmus
from litmus.datasets import ImageDataset, Split
from litmus.errors import LitmusError
from litmus.stacked_training import StackSettings
from litmus.zoo.ancestors import Fetch
from litmus.zoo.groups import Seat
from litmus.zoo.places import made_files, open_place
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import build_models, step_seconds
from litmus.zoo.store import read_summary

__all__ = ["make_models", "measure", "pack", "versions"]


def versions() -> dict[str, str]:
    """Return what must be the same on all machines, or the bytes would not be."""
    return {"litmus": litmus.__version__, "torch": torch.__version__}


def pack(dataset: ImageDataset) -> dict[str, Any]:
    """Return the data set as arrays, which all tasks of a node share in one copy."""
    return {
        "name": dataset.name,
        "class_names": dataset.class_names,
        "sha256": dataset.sha256,
        "splits": [
            (split.images.numpy(), split.labels.numpy()) for split in (dataset.train, dataset.test)
        ],
    }


def make_models(
    images: Mapping[str, Any],
    ancestors: Mapping[str, bytes],
    place: str | None,
    groups: Sequence[Sequence[Mapping[str, Any]]],
    plan: Mapping[str, Any],
    expected: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Make groups of models one after the other; return what the local worker replies for each.

    With a `place` that is reached from anywhere the files go there, and models that are there
    are not made again (the task may be the second try of one that was lost); without one they are
    in the reply. `ancestors` are files of models that these start from, by id. A reply with
    `error` is the last one.
    """
    import ray

    node = str(ray.get_runtime_context().get_node_id())
    replies: list[dict[str, Any]] = []
    try:
        if versions() != expected:
            raise LitmusError("other versions here", expected=expected, got=versions())
        torch.set_num_threads(1)
        dataset = _unpack(images)
        for seats in groups:
            group = [Seat.from_json(seat) for seat in seats]
            made = _make(group, dataset, place, StackPlan.from_json(plan), ancestors.__getitem__)
            replies += [{**reply, "node": node} for reply in made]
    except LitmusError as fault:
        replies.append({"error": f"{fault} (on node {node[:8]})"})
    return replies


def measure(
    images: Mapping[str, Any], spec: Mapping[str, Any], settings: StackSettings
) -> dict[int, float]:
    """Measure the seconds of a model's step on this node; see `step_seconds`."""
    return step_seconds(ModelSpec.from_json(spec), _unpack(images), settings)


def _make(
    group: Sequence[Seat],
    dataset: ImageDataset,
    place: str | None,
    plan: StackPlan,
    fetch: Fetch,
) -> list[dict[str, Any]]:
    if place is None:
        with tempfile.TemporaryDirectory(prefix="litmus-") as folder:
            first, *others = build_models(group, dataset, Path(folder), plan, fetch)
            return [{**first, "files": made_files(Path(folder))}, *others]
    remote = open_place(place)
    replies = {seat.spec.id: read_summary(remote, seat.spec.id) for seat in group}
    if missing := [seat for seat in group if replies[seat.spec.id] is None]:
        with remote.holding() as made:
            built = build_models(missing, dataset, made, plan, fetch)
        replies |= {reply["id"]: reply for reply in built}
    return [reply for reply in replies.values() if reply is not None]


def _unpack(images: Mapping[str, Any]) -> ImageDataset:
    with warnings.catch_warnings():
        # Nobody writes to the images: other tasks read the same memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        train, test = (
            Split(images=torch.from_numpy(pixels), labels=torch.from_numpy(labels))
            for pixels, labels in images["splits"]
        )
    return ImageDataset(
        name=images["name"],
        class_names=tuple(images["class_names"]),
        train=train,
        test=test,
        sha256=images["sha256"],
    )
