from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litmus import artifacts
from litmus.artifacts import (
    canonical_json,
    encode_tensors,
    machine_facts,
    parse_tensors,
    read_header,
    remove_temporary_files,
    sha256_of,
    write_atomically,
)
from litmus.errors import DetectorError, ZooError

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "float": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
    "bytes": np.array([0, 255, 7], dtype=np.uint8),
    "scalar": np.array(2.5, dtype=np.float64),
    "empty": np.zeros((0, 3), dtype=np.float32),
}
HEADER = {"name": "ü", "steps": 3, "nested": {"a": [1, 2.5, None, True]}}


def tensor_part(data: bytes | bytearray) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def test_canonical_json_is_one_text() -> None:
    assert canonical_json({"b": (1, 2), "a": "é"}) == '{"a":"\\u00e9","b":[1,2]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("content", [b"\x00\xff", "text é"])
def test_atomic_write_makes_folders_and_leaves_nothing_else(
    tmp_path: Path, content: bytes | str
) -> None:
    path = tmp_path / "new" / "file"
    for _ in range(2):
        write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "new")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_only_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    for name in (".writing-old", "model.safetensors", ".hidden"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    (tmp_path / ".writing-now").touch()
    remove_temporary_files(tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".hidden", ".writing-now", "model.safetensors"]


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"litmus" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"litmus" * 100_000).hexdigest()


def test_tensors_and_header_survive(tmp_path: Path) -> None:
    data = encode_tensors(ARRAYS, HEADER)
    arrays, header = parse_tensors(data, "memory", ZooError)
    assert {k: header[k] for k in HEADER} == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    (tmp_path / "file").write_bytes(data)
    assert read_header(tmp_path / "file", ZooError) == header
    assert header["tensors_sha256"] == hashlib.sha256(data[tensor_part(data) :]).hexdigest()


def test_the_same_content_gives_the_same_bytes() -> None:
    backwards = {name: ARRAYS[name].copy() for name in reversed(ARRAYS)}
    shuffled = dict(reversed(HEADER.items()))
    assert encode_tensors(ARRAYS, HEADER) == encode_tensors(backwards, shuffled)


@given(st.data())
def test_a_flipped_bit_among_the_tensors_is_found(data: st.DataObject) -> None:
    content = bytearray(encode_tensors(ARRAYS, HEADER))
    place = data.draw(st.integers(tensor_part(content), len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DetectorError, match=r"x\.litmus: the tensors are not those"):
        parse_tensors(bytes(content), "x.litmus", DetectorError)


@given(st.data())
def test_damage_anywhere_raises_the_error_that_was_asked_for(data: st.DataObject) -> None:
    content = bytearray(encode_tensors(ARRAYS, HEADER))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (content, content[:cut]):
        try:
            arrays, header = parse_tensors(bytes(damaged), "x", DetectorError)
        except DetectorError as fault:
            assert fault.where == "x"  # noqa: PT017 - either outcome is right
        else:  # a letter of a name or value
            assert len(arrays) == len(ARRAYS)
            assert "tensors_sha256" in header


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DetectorError):
        parse_tensors(data, "x", DetectorError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\xff" * 8, "cut short"),
        ((50).to_bytes(8, "little") + b"{}", "cut short"),
        ((2).to_bytes(8, "little") + b"{}", "without a Litmus header"),
        ((2).to_bytes(8, "little") + b"[]", "without a Litmus header"),
        ((4).to_bytes(8, "little") + b"\xff\xfe{}", "without a Litmus header"),
    ],
)
def test_read_header_refuses_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=message) as caught:
        read_header(path, ZooError)
    assert str(path) in str(caught.value)


def test_a_header_must_be_an_object() -> None:
    data = encode_tensors({}, {})
    content = data.replace(b'{\\"tensors_sha256\\":\\"', b'[\\"tensors_sha256\\",\\"')
    content = content.replace(b'\\"}"}', b'\\"]"}')
    assert content != data
    with pytest.raises(ZooError, match="malformed Litmus header"):
        parse_tensors(content, "x", ZooError)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="can't be read: No such file"):
        read_header(tmp_path / "none", ZooError)


def test_a_header_may_not_be_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ZooError, match="cut short"):
        read_header(path, ZooError)
    assert artifacts.MAX_HEADER_BYTES < 2**60


def test_machine_facts_name_the_processor() -> None:
    facts = machine_facts()
    assert facts.keys() == {"cpu", "cores", "system", "python"}
    assert all(facts.values())
