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
from litmus.zoo.places import made_files, open_place
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import read_summary
from litmus.zoo.trainer import build_model

__all__ = ["make_models", "pack", "versions"]


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
    place: str | None,
    specs: Sequence[Mapping[str, Any]],
    expected: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Make models one after the other, and return what the local worker would reply for each.

    With a `place` that is reached from anywhere the files go there, and models that are there
    are not made again (the task may be the second try of one that was lost); without one they are
    in the reply. A reply with `error` is the last one.
    """
    import ray

    node = str(ray.get_runtime_context().get_node_id())
    replies: list[dict[str, Any]] = []
    try:
        if versions() != expected:
            raise LitmusError("other versions here", expected=expected, got=versions())
        torch.set_num_threads(1)
        dataset = _unpack(images)
        for table in specs:
            spec = ModelSpec.from_json(table)
            replies.append({**_make(spec, dataset, place), "node": node})
    except LitmusError as fault:
        replies.append({"error": f"{fault} (on node {node[:8]})"})
    return replies


def _make(spec: ModelSpec, dataset: ImageDataset, place: str | None) -> dict[str, Any]:
    if place is None:
        with tempfile.TemporaryDirectory(prefix="litmus-") as folder:
            reply = build_model(spec, dataset, Path(folder))
            return {**reply, "files": made_files(Path(folder))}
    remote = open_place(place)
    if (there := read_summary(remote, spec.id)) is not None:
        return there
    with remote.holding() as made:
        return build_model(spec, dataset, made)


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
