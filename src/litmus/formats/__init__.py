"""Model files that Litmus can read, told apart by their first bytes and not by their names.

A new format is one file with a `load` and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from litmus.formats import onnx_file, zoo_file
from litmus.formats.preprocessing import Preprocessing
from litmus.models import InputSpec, Model

__all__ = ["FORMATS", "REFUSED", "SNIFF_BYTES", "Format", "Refusal", "sniff"]

SNIFF_BYTES: Final = 4096
"""How much of a file is looked at, in the parent process, to tell what it is."""

_EXPORT: Final = "export it to ONNX, for instance with torch.onnx.export"
_PICKLE_PROTOCOLS: Final = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
# ModelProto's fields other than ir_version, each as the tag that protobuf writes for it.
_ONNX_TAGS: Final = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca")


class Load(Protocol):
    """Loads a model; raises ModelError or UnsupportedModelError, see `errors`."""

    def __call__(
        self, path: Path, preprocessing: Preprocessing, *, expected: InputSpec | None = None
    ) -> Model:
        """Return the model in a file; `expected` settles what the file leaves open."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file that can be scanned.

    `sniff` tells it by its first `SNIFF_BYTES` bytes, `suffix` is its usual name. A format with
    `needs_torch` is loaded in processes of its own, so that no other file pays for PyTorch.
    """

    sniff: Callable[[bytes], bool]
    load: Load
    suffix: str
    needs_torch: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A kind of file that is known and not scanned, with what to do instead."""

    sniff: Callable[[bytes], bool]
    reason: str


def sniff(first_bytes: bytes) -> str | Refusal | None:
    """Return the name of a file's format, why it is refused, or None where it is unknown."""
    refusals = (refusal for refusal in REFUSED.values() if refusal.sniff(first_bytes))
    names = (name for name, format in FORMATS.items() if format.sniff(first_bytes))
    return next(refusals, None) or next(names, None)


def _load_zoo_file(
    path: Path, preprocessing: Preprocessing, *, expected: InputSpec | None = None
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


def _first_entry(data: bytes) -> bytes:
    """The name of a zip archive's first entry, which begins at byte 30; empty for other files."""
    length = int.from_bytes(data[26:28], "little")
    return data[30 : 30 + length] if data.startswith(b"PK\x03\x04") else b""


FORMATS: Final[dict[str, Format]] = {
    "onnx": Format(sniff=_is_onnx, load=onnx_file.load, suffix=".onnx"),
    "zoo": Format(
        sniff=_has_litmus_header, load=_load_zoo_file, suffix=".safetensors", needs_torch=True
    ),
}

REFUSED: Final[dict[str, Refusal]] = {
    "detector": Refusal(
        sniff=lambda data: _has_litmus_header(data) and b"litmus-detector" in data,
        reason="a detector, not a model",
    ),
    "safetensors": Refusal(
        sniff=lambda data: _is_safetensors(data) and not _has_litmus_header(data),
        reason=f"safetensors weights do not say which network they belong to; {_EXPORT}",
    ),
    "torch": Refusal(
        sniff=lambda data: _first_entry(data).endswith(b"/data.pkl"),
        reason=f"a PyTorch file holds a pickle, which may run any code; {_EXPORT}",
    ),
    "torchscript": Refusal(
        sniff=lambda data: any(part in _first_entry(data) for part in (b"/data/", b"/code/")),
        reason=f"a TorchScript or .pt2 archive may run any code; {_EXPORT}",
    ),
    "pickle": Refusal(
        sniff=lambda data: data.startswith(_PICKLE_PROTOCOLS),
        reason=f"a pickle may run any code and is never opened; {_EXPORT}",
    ),
    "hdf5": Refusal(
        sniff=lambda data: data.startswith(b"\x89HDF\r\n\x1a\n"),
        reason="a Keras HDF5 file; export it to ONNX with python -m tf2onnx.convert",
    ),
    "keras": Refusal(
        sniff=lambda data: _first_entry(data) in (b"metadata.json", b"config.json"),
        reason="a Keras archive; export it to ONNX with python -m tf2onnx.convert",
    ),
}
