"""Tensors of an ONNX model that lie in other files: read here, under our rules, and not by onnx.

The model may be hostile; call it in a child process only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litmus.errors import ModelError
from litmus.formats.onnx_graph import graphs_of

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, TensorProto

__all__ = ["inside_folder", "load_external_data", "may_refer_to_files"]

_KEY: Final = b"location"
"""With which a tensor names the file that it lies in."""
_PIECE: Final = 1 << 20


def load_external_data(model: ModelProto, path: Path, max_bytes: int) -> tuple[str, ...]:
    """Take tensors that lie in other files into `model`; those must lie in its own folder.

    Returns the files' locations. At most `max_bytes` are read. Raises ModelError on an absolute
    location, one that leads out (also through a symbolic link), and one that does not hold what
    it should.
    """
    from onnx import TensorProto

    read = set()
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        data = _read_external(path, entries, max_bytes)
        read.add(entries["location"])
        max_bytes -= len(data)
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
    return tuple(sorted(read))


def may_refer_to_files(path: Path) -> bool:
    """Return whether an ONNX file has the word by which it would name another; it's not parsed.

    Raises OSError where it can't be read.
    """
    end = b""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            if _KEY in end + piece:
                return True
            end = piece[-len(_KEY) :]
    return False


def _read_external(path: Path, entries: dict[str, str], max_bytes: int) -> bytes:
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        file = inside_folder(path, location)
        size = file.stat().st_size
        length = size - offset if length < 0 else length
        if offset < 0 or length < 0 or offset + length > size:
            raise ModelError(
                "external data is cut short",
                expected=f"{length} bytes at {offset}",
                got=f"a file of {size} bytes",
                where=f"{path}: {location}",
            )
        if length > max_bytes:
            raise ModelError(
                "the model and its external data are too large",
                expected=f"at most {max_bytes} bytes more",
                got=length,
                where=f"{path}: {location}",
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    except (OSError, ValueError) as fault:
        raise ModelError("external data can't be read", got=fault, where=path) from fault


def inside_folder(path: Path, location: str) -> Path:
    """Return the real file of a location; raises ModelError unless it is in the model's folder."""
    folder = Path(os.path.realpath(path.parent))
    file = Path(os.path.realpath(folder / location))
    parts = location.replace("\\", "/").split("/")
    if not location or location[0] in "/\\" or ".." in parts or not file.is_relative_to(folder):
        raise ModelError(
            "external data must lie in the model's own folder",
            expected=f"a file in {folder}",
            got=location or "no location",
            where=path,
        )
    if not stat.S_ISREG(file.stat().st_mode):
        raise ModelError("external data is no plain file", got=location, where=path)
    return file


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph, nodes in graphs_of(model):
        if graph is not None:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in nodes:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for tensor in [*sparse, *attribute.sparse_tensors]:
        yield from (tensor.values, tensor.indices)
