"""Files of every other kind, and bare bytes, that are broken or mean harm."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto
from safetensors.numpy import save

from litmus.artifacts import encode_tensors
from tests.formats.onnx_models import classifier, detector
from tests.formats.torch_files import (
    Canary,
    exported,
    network,
    rezipped,
    saved,
    scripted,
    with_pickle,
)
from tests.hostile.onnx_files import Ending

__all__ = ["FILES", "Write", "write_bytes"]

Write = Callable[[Path, Path], None]
"""Writes a file at the first path; the second one is a canary's, which must not come to be."""


def write_bytes(make: Callable[[], bytes]) -> Write:
    def write(path: Path, canary: Path) -> None:
        path.write_bytes(make())

    return write


def _onnx() -> bytes:
    return bytes(classifier().SerializeToString())


def _state() -> bytes:
    return saved(network().state_dict())


def _tag(field: int, length: int) -> bytes:
    """A protobuf field that says so many bytes follow."""
    number, encoded = length, b""
    while number > 127:
        encoded, number = encoded + bytes([number & 127 | 128]), number >> 7
    return bytes([field << 3 | 2]) + encoded + bytes([number])


def _field(field: int, content: bytes) -> bytes:
    return _tag(field, len(content)) + content


def _safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(64)


def _header(**tensor: object) -> bytes:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return json.dumps({"w": {**entry, **tensor}}).encode()


def _zip_bomb(name: str = "net/data.pkl") -> bytes:
    """A tenth of a megabyte that becomes a hundred."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(10**8))
        archive.writestr("net/version", "3")
    return buffer.getvalue()


def _claiming_zip() -> bytes:
    """An archive whose directory says that its pickle has 2 GB."""
    content = bytearray(rezipped(_state()))
    place = content.index(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 2**31 - 1, 2**31 - 1)
    return bytes(content)


def _many_members() -> bytes:
    """An archive whose directory lists its one member 60,000 times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/version", "3")
    content = buffer.getvalue()
    directory, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    records = content[directory:end] * 60_000
    place = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 60_000, 60_000, len(records), directory, 0)
    return content[:directory] + records + place


def _deep_graph() -> bytes:
    """A thousand graphs, each in a node of the one before."""
    graph = b""
    for _ in range(1000):
        attribute = _field(6, graph)  # AttributeProto.g
        graph = _field(1, _field(5, attribute))  # GraphProto.node, NodeProto.attribute
    return b"\x08\x08" + _field(7, graph)


def _huge_tensor() -> bytes:
    """A pickle whose tensor of 2^40 numbers has a storage of one: strides of 0."""
    import torch

    return saved({"w": torch.zeros(1).expand(2**20, 2**20)})


def _external(location: str, *links: tuple[str, str]) -> Write:
    """A model whose weights are said to lie elsewhere."""

    def write(path: Path, canary: Path) -> None:
        model = classifier()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        path.write_bytes(model.SerializeToString())
        for name, target in links:
            (path.parent / name).symlink_to(target)

    return write


def _sidecar(content: bytes) -> Write:
    def write(path: Path, canary: Path) -> None:
        path.write_bytes(_onnx())
        path.with_name(f"{path.stem}.litmus.toml").write_bytes(content)

    return write


def _pickled(wrap: Callable[[Canary], bytes]) -> Write:
    def write(path: Path, canary: Path) -> None:
        path.write_bytes(wrap(Canary(canary)))

    return write


def _zoo_file(header: dict[str, object]) -> bytes:
    return encode_tensors({"w": np.zeros(4, np.float32)}, header)


def _flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 0xFF
    return bytes(damaged)


def _training_info() -> bytes:
    model = onnx.ModelProto()
    model.ParseFromString(_onnx())
    model.ClearField("graph")
    return bytes(model.SerializeToString())


SYSTEM: Final = ("failed", "reaches for the system")
NOT_ONNX: Final = ("failed", "not an ONNX file, or a damaged one|without a graph")
BAD_SAFE: Final = ("failed", "damaged safetensors file|no safetensors file")

FILES: Final[dict[str, tuple[Write, Ending]]] = {
    # Bytes.
    "empty.onnx": (write_bytes(bytes), NOT_ONNX),
    "empty.pt": (write_bytes(bytes), ("failed", "no pt file")),
    "empty.safetensors": (write_bytes(bytes), ("failed", "no safetensors file")),
    "zeros.onnx": (write_bytes(partial(bytes, 10**6)), NOT_ONNX),
    "ones.onnx": (write_bytes(lambda: b"\xff" * 10**6), NOT_ONNX),
    "elf.onnx": (write_bytes(lambda: b"\x7fELF" + bytes(60)), NOT_ONNX),
    "png.pth": (write_bytes(lambda: b"\x89PNG\r\n\x1a\n" + bytes(60)), ("failed", "no pth file")),
    "text.keras": (write_bytes(lambda: b"hello"), ("failed", "no keras file")),
    "a detector.onnx": (write_bytes(lambda: detector().to_bytes()), ("skipped", "a detector")),
    # ONNX.
    "cut at a third.onnx": (write_bytes(lambda: _onnx()[: len(_onnx()) // 3]), NOT_ONNX),
    "cut at the end.onnx": (write_bytes(lambda: _onnx()[:-1]), NOT_ONNX),
    "flipped.onnx": (write_bytes(lambda: _flipped(_onnx(), 3)), NOT_ONNX),
    "claims 2 GB.onnx": (write_bytes(lambda: b"\x08\x08" + _tag(7, 2**31 - 1)), NOT_ONNX),
    "claims 2^63.onnx": (write_bytes(lambda: b"\x08\x08" + _tag(7, 2**63 - 1)), NOT_ONNX),
    "branches 1000 deep.onnx": (write_bytes(_deep_graph), NOT_ONNX),
    "no graph.onnx": (write_bytes(_training_info), NOT_ONNX),
    "external passwd.onnx": (
        _external("../../etc/passwd"), ("failed", r"own folder .*got \.\./\.\./etc/passwd")
    ),
    "external absolute.onnx": (_external("/etc/passwd"), ("failed", "model's own folder")),
    "external link.onnx": (
        _external("weights.bin", ("weights.bin", "/etc/passwd")), ("failed", "model's own folder")
    ),
    "external folder link.onnx": (
        _external("sub/passwd", ("sub", "/etc")), ("failed", "model's own folder")
    ),
    "external device.onnx": (
        _external("zero.bin", ("zero.bin", "/dev/zero")), ("failed", "model's own folder")
    ),
    "external folder.onnx": (_external("."), ("failed", "no plain file|can't be read")),
    "external itself.onnx": (_external("external itself.onnx"), ("failed", "can't run it")),
    "external nul.onnx": (_external("a\0b"), ("failed", "external data can't be read|folder")),
    # Sidecars.
    "sidecar nested.onnx": (
        _sidecar(b"scale = " + b"[" * 10**5), ("failed", r"nested\.litmus\.toml: not valid TOML")
    ),
    "sidecar large.onnx": (_sidecar(b"#" * 10**6), ("failed", r"large\.litmus\.toml: too large")),
    "sidecar nan.onnx": (_sidecar(b"scale = nan"), ("failed", "scale: wrong value")),
    "sidecar binary.onnx": (_sidecar(b"\xff\0\xfe"), ("failed", "not valid TOML")),
    # Safetensors.
    "claims 2 GB.safetensors": (
        write_bytes(lambda: _safetensors(b'{"a": 1}', 2**31 - 1)), BAD_SAFE
    ),
    "claims 2^63.safetensors": (
        write_bytes(lambda: _safetensors(b'{"a": 1}', 2**63 - 1)), BAD_SAFE
    ),
    "nested.safetensors": (write_bytes(lambda: _safetensors(b'{"a":' + b"[" * 10**5)), BAD_SAFE),
    "overlapping.safetensors": (
        write_bytes(lambda: _safetensors(_header(data_offsets=[0, 2**40]))), BAD_SAFE
    ),
    "huge shape.safetensors": (
        write_bytes(lambda: _safetensors(_header(shape=[2**40, 2**40]))), BAD_SAFE
    ),
    "cut.safetensors": (
        write_bytes(lambda: save({"w": np.zeros(100, np.float32)})[:-50]), BAD_SAFE
    ),
    "other weights.safetensors": (
        write_bytes(lambda: save({"w": np.zeros(100, np.float32)})),
        ("failed", "not the weights of resnet:width=4: missing .*; unexpected w"),
    ),
    "zoo nested.safetensors": (
        write_bytes(lambda: _zoo_file({"format": "litmus-zoo-model", "spec": {"a": {}}})),
        ("failed", "header and weights do not fit"),
    ),
    "zoo flipped.safetensors": (
        write_bytes(lambda: _flipped(_zoo_file({"format": "litmus-zoo-model"}), -1)),
        ("failed", "not those that were written"),
    ),
    # PyTorch's archives.
    "cut.pt": (write_bytes(lambda: _state()[:1500]), ("failed", "damaged zip archive")),
    "bomb.pt": (write_bytes(_zip_bomb), ("failed", "a compressed archive")),
    "bomb.keras": (
        write_bytes(partial(_zip_bomb, "metadata.json")), ("skipped", "tf2onnx.convert --keras")
    ),
    "claims 2 GB.pt": (write_bytes(_claiming_zip), ("failed", "claims more than it can hold")),
    "60,000 members.pt": (write_bytes(_many_members), ("failed", "not a PyTorch archive")),
    "tensor of 2^40.pt": (write_bytes(_huge_tensor), ("failed", "not the weights of")),
    "script.pt": (write_bytes(lambda: scripted(network())), ("skipped", "a TorchScript archive")),
    "program.pt2": (write_bytes(lambda: exported(network())), ("skipped", r"a \.pt2 archive")),
    "module.pth": (write_bytes(lambda: saved(network())), ("skipped", "it holds pickled objects")),
    "deep pickle.pt": (
        write_bytes(lambda: _with_data(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".")),
        ("skipped", r"no weights in it .*got list\)"),
    ),
    "endless pickle.pt": (
        write_bytes(lambda: _with_data(b"\x80\x02" + b"N0" * 5 * 10**5 + b"N.")),
        ("failed", "a pickle too long for weights"),
    ),
    # Pickles that would make a folder.
    "canary.pt": (_pickled(lambda c: with_pickle(_state(), c)), SYSTEM),
    "canary protocol 5.pt": (_pickled(lambda c: with_pickle(_state(), c, 5)), SYSTEM),
    "canary in a dict.pth": (_pickled(lambda c: saved({"state_dict": c})), SYSTEM),
    "canary legacy.pt": (
        _pickled(lambda c: saved([c], _use_new_zipfile_serialization=False)), SYSTEM
    ),
    "canary behind weights.pt": (
        _pickled(lambda c: saved({**network().state_dict(), "z": c})), SYSTEM
    ),
    "canary bare.pt": (_pickled(pickle.dumps), ("skipped", "a pickle may run any code")),
    "canary bare.onnx": (_pickled(pickle.dumps), ("skipped", "a pickle may run any code")),
    "canary bare.safetensors": (_pickled(pickle.dumps), ("skipped", "a pickle may run any code")),
    "canary protocol 0.pt": (_pickled(partial(pickle.dumps, protocol=0)), ("failed", "no pt file")),
    "canary in a program.pt2": (
        _pickled(
            lambda c: rezipped(
                exported(network()),
                lambda name, old: saved(c) if name.endswith(".pt") else old,
            )
        ),
        ("skipped", r"a \.pt2 archive"),
    ),
}  # fmt: skip


def _with_data(data: bytes) -> bytes:
    return rezipped(_state(), lambda name, old: data if name.endswith("data.pkl") else old)
