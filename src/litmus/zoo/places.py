"""Where a zoo's files are: a folder, or whatever fsspec reaches, such as an S3 bucket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from litmus.artifacts import cache_folder, remove_temporary_files, write_atomically
from litmus.errors import MissingExtraError, ZooError

__all__ = ["LocalPlace", "Place", "RemotePlace", "local_folder", "made_files", "open_place"]

_MANIFEST: Final = ".mirror.json"
_DONE: Final = (".safetensors", ".rejected.json")
"""A model is done when a file with such a name is there, so that these are written last."""

T = TypeVar("T")


class Place(ABC):
    """Files by name. Each is whole or not there, whoever is killed while writing it."""

    reached_from_anywhere: bool
    """Whether a worker on another machine can write to it."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files, from one listing."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises FileNotFoundError."""

    @abstractmethod
    def write(self, name: str, content: bytes | str) -> None:
        """Write a file, atomically."""

    @abstractmethod
    def where(self, name: str) -> Path | str:
        """Return what messages call a file."""

    @abstractmethod
    def holding(self) -> AbstractContextManager[Path]:
        """A local folder to make models in; what is there at the end is in this place, too."""

    def remove_temporary_files(self) -> None:  # noqa: B027 - only folders have such files
        """Remove what killed writers left."""


class LocalPlace(Place):
    """A folder of this machine, or one that is mounted on it."""

    reached_from_anywhere = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder.resolve())

    def names(self) -> list[str]:
        """Return the names of all files; none where there is no folder."""
        try:
            with os.scandir(self.folder) as items:
                return [item.name for item in items]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file under a temporary name and rename it."""
        write_atomically(self.folder / name, content)

    def where(self, name: str) -> Path:
        """Return the file's path."""
        return self.folder / name

    @contextmanager
    def holding(self) -> Iterator[Path]:
        """The folder itself."""
        yield self.folder

    def remove_temporary_files(self) -> None:
        """Remove what killed writers left."""
        remove_temporary_files(self.folder)


class RemotePlace(Place):
    """A folder of an object store, by its URL: `s3://bucket/zoo`.

    Credentials and endpoint are those of fsspec and of the store's own environment: for S3
    `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL` and so on. Raises MissingExtraError
    where the store's library is not installed, ZooError for whatever the store says.
    """

    reached_from_anywhere = True

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            # Others write there at the same time.
            self._files, self._root = url_to_fs(self._url, use_listings_cache=False)
        except ImportError as fault:
            extra = "s3" if url.startswith("s3://") else "train"
            raise MissingExtraError(
                f"no library for this kind of place: {fault}",
                expected=f"pip install 'litmus-patterns[{extra}]'",
                where=url,
            ) from fault
        except ValueError as fault:
            raise ZooError(f"no such kind of place: {fault}", where=url) from fault

    def __str__(self) -> str:
        return self._url

    def names(self) -> list[str]:
        """Return the names of all files, from one listing: a request for each 1,000 on S3."""
        return list(self._listing())

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises FileNotFoundError."""
        return bytes(self._asked(name, lambda: self._files.cat_file(f"{self._root}/{name}")))

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file in one request, which is atomic on object stores."""
        data = content.encode() if isinstance(content, str) else content
        try:
            self._asked(name, lambda: self._files.pipe_file(f"{self._root}/{name}", data))
        except FileNotFoundError as fault:
            raise ZooError(f"can't be written: {fault}", where=self.where(name)) from fault

    def where(self, name: str) -> str:
        """Return the file's URL."""
        return f"{self._url}/{name}"

    @contextmanager
    def holding(self) -> Iterator[Path]:
        """A temporary folder whose files are written here when its context ends well."""
        with tempfile.TemporaryDirectory(prefix="litmus-") as folder:
            yield Path(folder)
            for name, content in made_files(Path(folder)):
                self.write(name, content)

    def mirror(self, folder: Path) -> None:
        """Make `folder` hold the same files, fetching those that are new or have changed."""
        folder.mkdir(parents=True, exist_ok=True)
        listing = self._listing()
        manifest = folder / _MANIFEST
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(manifest.read_text(encoding="utf-8"))
        present = set(LocalPlace(folder).names())
        for name in present & known.keys() - listing.keys():
            (folder / name).unlink()
        wanted = [n for n, key in listing.items() if n not in present or known.get(n) != key]
        if wanted:
            manifest.unlink(missing_ok=True)  # what is in between is fetched again
            self._fetch(wanted, folder)
            write_atomically(manifest, json.dumps(listing))

    def _fetch(self, names: list[str], folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
            remote = [f"{self._root}/{name}" for name in names]
            local = [f"{temporary}/{name}" for name in names]
            self._asked("", lambda: self._files.get(remote, local))
            for name in names:
                (Path(temporary) / name).replace(folder / name)

    def _listing(self) -> dict[str, str]:
        """Names, and what changes when the file does."""
        try:
            found = self._asked("", lambda: self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            return {}
        return {
            info["name"].rsplit("/", 1)[1]: str(
                (info.get("size"), info.get("ETag", info.get("created")))
            )
            for info in found
            if info["type"] == "file"
        }

    def _asked(self, name: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as fault:  # each store has errors of its own
            raise ZooError(f"the store says: {fault}", where=self.where(name)) from fault


def open_place(where: str | Path | Place) -> Place:
    """Return the place of a path or a URL; `file://` is a path of this machine."""
    if isinstance(where, Place):
        return where
    if isinstance(where, Path) or "://" not in where:
        return LocalPlace(Path(where))
    if where.startswith("file://"):
        return LocalPlace(Path(where.removeprefix("file://")))
    return RemotePlace(where)


def local_folder(where: str | Path) -> Path:
    """Return a folder that holds a zoo's files: for a URL, a mirror of it in the cache."""
    place = open_place(where)
    if isinstance(place, LocalPlace):
        return place.folder
    assert isinstance(place, RemotePlace)
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:24]
    folder = cache_folder() / "zoos" / digest
    place.mirror(folder)
    return folder


def made_files(folder: Path) -> list[tuple[str, bytes]]:
    """Return names and bytes of the files of a folder, those that say `done` at the end."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.name.endswith(_DONE), path.name))
    return [(path.name, path.read_bytes()) for path in paths]
