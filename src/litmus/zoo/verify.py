"""Checking a zoo: is every file whole, is its header true, do its bytes come out again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from litmus.datasets import ImageDataset, load_images
from litmus.errors import LitmusError, ZooError
from litmus.formats import zoo_file
from litmus.training import one_thread
from litmus.zoo.stacks import train_again
from litmus.zoo.store import Zoo, ZooEntry, read_entry
from litmus.zoo.trainer import measure

__all__ = ["Finding", "verify"]

_TOLERANCE = 0.002
"""Another processor rounds otherwise, which moves a few predictions in a thousand."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One file that was checked, and what is wrong with it (None: nothing)."""

    path: Path
    problem: str | None


def verify(
    folder: str | Path,
    *,
    remeasure: int = 0,
    retrain: int = 0,
    data: str | Path | None = None,
) -> Iterator[Finding]:
    """Check every model of a zoo, yielding a finding for each file.

    Always: the bytes are those that were written, header and weights fit, the id follows from the
    spec, the gates were passed. The first `remeasure` models' accuracy and attack success are
    measured again, and the first `retrain` are trained again and compared byte by byte (torch
    version and kind of processor must be the same for that). Raises ZooError where there is no
    zoo, DataError where images are needed and missing.
    """
    root = Path(folder)
    zoo = Zoo.open(root) if remeasure or retrain else None
    images = _images(zoo, data) if zoo else None
    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise ZooError("the zoo has no models yet", where=root)
    order = {entry.path: position for position, entry in enumerate(zoo.entries)} if zoo else {}
    for path in files:
        try:
            entry = _check(path)
            position = order.get(path, len(files))
            if images is not None and position < remeasure:
                _remeasure(entry, images)
            if images is not None and position < retrain:
                _retrain(entry, images)
        except LitmusError as fault:
            yield Finding(path=path, problem=str(fault))
        else:
            yield Finding(path=path, problem=None)


def _images(zoo: Zoo, data: str | Path | None) -> ImageDataset:
    options = zoo.entries[0].spec.images
    name = options.pop("name")
    return load_images(name, data=data, **options)


def _check(path: Path) -> ZooEntry:
    entry = read_entry(path)
    zoo_file.load(path)
    if not entry.id == entry.spec.id == path.stem:
        raise ZooError(
            "the id does not follow from the spec",
            expected=entry.spec.id,
            got=f"{entry.id} in {path.name}",
            where=path,
        )
    gates = entry.spec.gates
    if entry.clean_accuracy < gates["clean_accuracy"] or (
        entry.backdoored and entry.attack_success <= gates["attack_success"]
    ):
        raise ZooError("a model that failed its gate was accepted", where=path)
    return entry


def _remeasure(entry: ZooEntry, images: ImageDataset) -> None:
    module = zoo_file.load(entry.path).torch_module()
    measured = measure(entry.spec, module, images)
    claimed = (entry.clean_accuracy, entry.attack_success)
    if max(abs(a - b) for a, b in zip(measured, claimed, strict=True)) > _TOLERANCE:
        raise ZooError(
            "clean accuracy and attack success are not what the header says",
            expected=claimed,
            got=measured,
            where=entry.path,
        )


def _retrain(entry: ZooEntry, images: ImageDataset) -> None:
    with one_thread():
        content = train_again(entry, images).content
    if content != entry.path.read_bytes():
        raise ZooError("training the model again gives other bytes", where=entry.path)
