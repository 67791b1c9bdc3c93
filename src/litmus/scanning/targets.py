"""Which files a scan is about: paths and folders in, files with their format out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from litmus.errors import UsageError

__all__ = ["SERVED", "Address", "Target", "find_targets"]

SERVED: Final = "served"
"""The format of a model that a server runs."""


@dataclass(frozen=True)
class Address:
    """Where a server runs a model; takes the place of a file's path."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """What the server calls the model."""
        return self.url.rstrip("/").partition("/models/")[2] or self.url


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file to scan in a `format`, or the reason why it is skipped, or why it failed.

    A served model's `format` is `SERVED`, and its `path` an address.
    """

    path: Path | Address
    format: str = ""
    skipped: str = ""
    failed: str = ""


def find_targets(paths: Iterable[str | Path]) -> Iterator[Target]:
    """Yield the files to scan, in the order of `paths`, those of a folder sorted.

    A folder is walked without following links to folders; hidden files are ignored, and so are
    files that are no models, neither by content nor by suffix. At most 4 KiB of a file are read.
    A file that is named is always reported, and so is a served model, `http[s]://...`.
    """
    for name in paths:
        if isinstance(name, str) and name.lower().startswith(("http://", "https://")):
            yield _served(name)
            continue
        path = Path(name)
        if path.is_dir():
            yield from _walk(path)
        else:
            yield _identify(path) or Target(
                path=path, skipped="not a kind of model file that Litmus knows"
            )


def _served(url: str) -> Target:
    from litmus.server_address import address_fault, bearer_token, shown_address

    if fault := address_fault(url):
        failed = f"no address of a served model: {fault}"
        return Target(path=Address(shown_address(url)), failed=failed)
    try:
        bearer_token()
    except UsageError as unfit:
        return Target(path=Address(url), failed=str(unfit))
    return Target(path=Address(url.rstrip("/")), format=SERVED)


def _walk(folder: Path) -> Iterator[Target]:
    unreadable: list[OSError] = []
    suffixes = _model_suffixes()
    for root, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith("."):
                continue
            target = _identify(path)
            if target and (target.format or path.suffix.lower() in suffixes):
                yield target
    for fault in unreadable:
        yield Target(path=Path(fault.filename), failed=f"can't be read: {fault.strerror}")


def _identify(path: Path) -> Target | None:
    """Return what a file is, by its content; None where it is nothing that Litmus knows."""
    from litmus.formats import FORMATS, SNIFF_BYTES, Refusal, sniff

    try:
        # Opening a pipe or a device could block for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            return Target(path=path, skipped="not a plain file")
        with path.open("rb") as file:
            kind = sniff(file.read(SNIFF_BYTES))
    except OSError as fault:
        return Target(path=path, failed=f"can't be read: {fault.strerror}")
    if isinstance(kind, Refusal):
        return Target(path=path, skipped=kind.reason(path))
    if kind is not None:
        return Target(path=path, format=kind)
    suffix = path.suffix.lower()
    if suffix in FORMATS["onnx"].suffixes:
        return Target(path=path, format="onnx")  # which its process can say more of
    if suffix in _model_suffixes():
        return Target(path=path, failed=f"no {suffix[1:]} file, or a damaged one")
    return None


def _model_suffixes() -> frozenset[str]:
    """The suffixes of every kind of file that Litmus knows."""
    from litmus.formats import FORMATS, REFUSED

    known = [format.suffixes for format in FORMATS.values()]
    known += [refusal.suffixes for refusal in REFUSED.values()]
    return frozenset(suffix for suffixes in known for suffix in suffixes)
