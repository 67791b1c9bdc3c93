"""Model files that Litmus can read, told apart by their first bytes and not by their names.

A new format is one file with a `load` and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from litmus.formats import onnx_file, weights_file, zoo_file
from litmus.formats.export_lines import export_line
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.stated_network import StatedNetwork
from litmus.formats.torch_archive import is_legacy, is_torch_archive
from litmus.models import InputSpec, Model

__all__ = ["FORMATS", "REFUSED", "SNIFF_BYTES", "Format", "Refusal", "sniff"]

SNIFF_BYTES: Final = 4096
"""How much of a file is looked at, in the parent process, to tell what it is."""

_PICKLE_PROTOCOLS: Final = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
# ModelProto's fields other than ir_version, each as the tag that protobuf writes for it.
_ONNX_TAGS: Final = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")


class Load(Protocol):
    """Loads a model; raises ModelError or UnsupportedModelError, see `errors`."""

    def __call__(
        self,
        path: Path,
        preprocessing: Preprocessing,
        *,
        expected: InputSpec | None = None,
        architecture: StatedNetwork | None = None,
    ) -> Model:
        """Return the model in a file.

        `expected` settles what the file leaves open, `architecture` is the network of one that
        holds weights alone.
        """


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file that can be scanned.

    `sniff` tells it by its first `SNIFF_BYTES` bytes, `suffixes` are its usual names. A format
    with `needs_torch` is loaded in processes of its own, so that no other file pays for PyTorch.
    One with `needs_architecture` holds weights alone, and gets to them only where the user says of
    which network.
    """

    sniff: Callable[[bytes], bool]
    load: Load
    suffixes: tuple[str, ...]
    needs_torch: bool = False
    needs_architecture: bool = False

    def loads_torch(self, *, has_architecture: bool) -> bool:
        """Return whether PyTorch is needed, given whether the user named an architecture."""
        return self.needs_torch and (has_architecture or not self.needs_architecture)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A kind of file that is known and not scanned, with what to do instead.

    `export` is the kind of `export_line` that makes ONNX of it.
    """

    sniff: Callable[[bytes], bool]
    what: str
    suffixes: tuple[str, ...] = ()
    export: str = ""

    def reason(self, path: Path) -> str:
        """Return what to tell the user about a file."""
        return f"{self.what}: {export_line(self.export, path)}" if self.export else self.what


def sniff(first_bytes: bytes) -> str | Refusal | None:
    """Return the name of a file's format, why it is refused, or None where it is unknown."""
    refusals = (refusal for refusal in REFUSED.values() if refusal.sniff(first_bytes))
    names = (name for name, format in FORMATS.items() if format.sniff(first_bytes))
    return next(refusals, None) or next(names, None)


def _load_onnx(
    path: Path,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None = None,
    architecture: StatedNetwork | None = None,
) -> Model:
    return onnx_file.load(path, preprocessing, expected=expected)


def _load_zoo_file(
    path: Path,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None = None,
    architecture: StatedNetwork | None = None,
) -> Model:
    return zoo_file.load(path)


def _is_onnx(data: bytes) -> bool:
    """An ir_version (3 was the first released), then another field of a ModelProto."""
    return len(data) > 2 and data[0] == 0x08 and 3 <= data[1] < 0x80 and data[2] in _ONNX_TAGS


def _is_safetensors(data: bytes) -> bool:
    """The length of a JSON header in 8 bytes, little-endian, then that header."""
    return len(data) > 8 and 2 <= int.from_bytes(data[:8], "little") < 2**32 and data[8] == 0x7B


def _has_litmus_header(data: bytes) -> bool:
    return _is_safetensors(data) and b'"litmus":' in data[:64]


def _first_entry(data: bytes) -> str:
    """The name of a zip archive's first entry, which begins at byte 30; empty for other files."""
    length = int.from_bytes(data[26:28], "little")
    entry = data[30 : 30 + length] if data.startswith(b"PK\x03\x04") else b""
    return entry.decode(errors="replace")


def _is_torch(data: bytes) -> bool:
    return is_legacy(data) or is_torch_archive(_first_entry(data))


FORMATS: Final[dict[str, Format]] = {
    "onnx": Format(sniff=_is_onnx, load=_load_onnx, suffixes=(".onnx",)),
    "zoo": Format(
        sniff=_has_litmus_header, load=_load_zoo_file, suffixes=(".safetensors",), needs_torch=True
    ),
    "safetensors": Format(
        sniff=lambda data: _is_safetensors(data) and not _has_litmus_header(data),
        load=weights_file.load_safetensors,
        suffixes=(".safetensors",),
        needs_torch=True,
        needs_architecture=True,
    ),
    "torch": Format(
        sniff=_is_torch,
        load=weights_file.load_torch,
        suffixes=(".pt", ".pth", ".pt2"),
        needs_torch=True,
        needs_architecture=True,
    ),
}

REFUSED: Final[dict[str, Refusal]] = {
    "detector": Refusal(
        sniff=lambda data: _has_litmus_header(data) and b"litmus-detector" in data,
        what="a detector, not a model",
    ),
    "pickle": Refusal(
        sniff=lambda data: data.startswith(_PICKLE_PROTOCOLS) and not _is_torch(data),
        what="a pickle may run any code and is never opened; let whoever made it export it to ONNX",
    ),
    "hdf5": Refusal(
        sniff=lambda data: data.startswith(b"\x89HDF\r\n\x1a\n"),
        what="a Keras HDF5 file may hold code; where you trust whoever made it, export it to ONNX",
        suffixes=(".h5", ".hdf5"),
        export="keras",
    ),
    "keras": Refusal(
        sniff=lambda data: _first_entry(data) in ("metadata.json", "config.json"),
        what="a Keras archive may hold code; where you trust whoever made it, export it to ONNX",
        suffixes=(".keras",),
        export="keras",
    ),
}
