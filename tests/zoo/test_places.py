"""Zoos that are elsewhere: fsspec's own memory here, an S3 server in `make test-cluster`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from litmus.errors import MissingExtraError, ZooError
from litmus.zoo.places import LocalPlace, RemotePlace, local_folder, open_place

URL = "memory://litmus-places/zoo"


@pytest.fixture
def remote() -> Iterator[RemotePlace]:
    place = open_place(URL)
    assert isinstance(place, RemotePlace)
    yield place
    files = fsspec.filesystem("memory")
    if files.exists("/litmus-places"):
        files.rm("/litmus-places", recursive=True)


def test_a_path_or_a_url_names_a_place(tmp_path: Path) -> None:
    for where in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        place = open_place(where)
        assert isinstance(place, LocalPlace)
        assert place.folder == tmp_path == local_folder(where)
    assert open_place(place) is place
    assert str(open_place(f"{URL}/")) == URL


def test_both_kinds_of_place_do_the_same(tmp_path: Path, remote: RemotePlace) -> None:
    for place in (LocalPlace(tmp_path / "zoo"), remote):
        assert place.names() == []
        with pytest.raises(FileNotFoundError):
            place.read("a.json")
        place.write("a.json", "1")
        place.write("a.json", b"22")
        with place.holding() as folder:
            (folder / "b.json").write_text("b")
        assert sorted(place.names()) == ["a.json", "b.json"]
        assert (place.read("a.json"), place.read("b.json")) == (b"22", b"b")


def test_what_says_done_is_written_last(
    remote: RemotePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(remote, "write", lambda name, content: written.append(name))
    with remote.holding() as folder:
        for name in ("a.safetensors", "a.build.json", "b.rejected.json", "b.build.json"):
            (folder / name).touch()
    assert written == ["a.build.json", "b.build.json", "a.safetensors", "b.rejected.json"]


def test_nothing_is_written_when_making_failed(remote: RemotePlace) -> None:
    def fail() -> None:
        with remote.holding() as folder:
            (folder / "a.safetensors").touch()
            raise ValueError("half a model")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert remote.names() == []


def test_a_mirror_follows_what_is_there(remote: RemotePlace, tmp_path: Path) -> None:
    remote.write("a", "1")
    remote.write("b", "1")
    remote.mirror(tmp_path)
    (tmp_path / "measured").mkdir()
    untouched = (tmp_path / "b").stat().st_mtime_ns
    remote.write("a", "two")
    remote.write("c", "3")
    remote.mirror(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir() if p.name in "abc"} == {
        "a": "two", "b": "1", "c": "3"
    }  # fmt: skip
    assert (tmp_path / "b").stat().st_mtime_ns == untouched
    fsspec.filesystem("memory").rm("/litmus-places/zoo/a")
    remote.mirror(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"b", "c", "measured", ".mirror.json"}
    # What is lost is fetched again; a manifest that is damaged is not believed.
    (tmp_path / "b").unlink()
    (tmp_path / ".mirror.json").write_text("{")
    remote.mirror(tmp_path)
    assert (tmp_path / "b").read_text() == "1"
    assert json.loads((tmp_path / ".mirror.json").read_text()).keys() == {"b", "c"}


def test_places_that_nobody_knows() -> None:
    with pytest.raises(ZooError, match="no such kind of place"):
        open_place("nowhere://zoo")
    with pytest.raises(MissingExtraError, match="no library for this kind of place"):
        open_place("gdrive://zoo")
