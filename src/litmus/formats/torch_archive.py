"""What kind of PyTorch file this is, by its zip members and opcodes; PyTorch is not needed.

The file may be hostile; call it in a child process only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats.export_lines import export_line
from litmus.formats.pickles import MAX_PICKLE_BYTES, PickleContent, read_pickle
from litmus.models import InputSpec

__all__ = ["check_weights_only", "is_legacy", "is_torch_archive"]

_LEGACY_MAGIC: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch.save began before PyTorch 1.6, behind the protocol: a pickle of its magic number."""
_LEGACY_START: Final = 32

_LEGACY_STREAMS: Final = 4
"""Magic number, protocol, facts of the system, and the object; the tensors' bytes follow."""
_MAX_MEMBERS: Final = 50_000
_SHOWN: Final = 3

# The folders and files below the one folder that PyTorch puts all of an archive into.
_FILES: Final = frozenset(
    {"data.pkl", "constants.pkl", "version", "byteorder", "archive_format", "archive_version",
     ".format_version", ".storage_alignment"}
)  # fmt: skip
_FOLDERS: Final = frozenset({"data", ".data", "code", "models", "extra"})


def is_torch_archive(first_entry: str) -> bool:
    """Return whether a zip archive whose first entry has this name was written by PyTorch."""
    _, _, inner = first_entry.partition("/")
    folder, slash, _ = inner.partition("/")
    # torch.export.save once wrote without the outer folder.
    old_export = first_entry.startswith("serialized_exported_program")
    return inner in _FILES or (bool(slash) and folder in _FOLDERS) or old_export


def is_legacy(first_bytes: bytes) -> bool:
    """Return whether a file begins as those of torch.save before PyTorch 1.6."""
    return first_bytes[:1] == b"\x80" and _LEGACY_MAGIC in first_bytes[:_LEGACY_START]


def check_weights_only(path: Path, expected: InputSpec | None) -> None:
    """Raise unless a PyTorch file's pickle builds nothing but tensors in plain containers.

    UnsupportedModelError, with the line that exports it to ONNX, for TorchScript, an exported
    program and pickled objects; ModelError where the file is damaged, where its archive claims
    more than it holds, and where the pickle reaches for the system.
    """
    try:
        with path.open("rb") as file:
            if is_legacy(file.read(_LEGACY_START)):
                file.seek(0)
                data = file.read(MAX_PICKLE_BYTES)
                content = read_pickle(data, path, streams=_LEGACY_STREAMS)
            else:
                content = read_pickle(_pickle_of(path, expected), path)
    except OSError as fault:
        raise ModelError(f"can't be read: {fault.strerror}", where=path) from fault
    _check_content(content, path, expected)


def _pickle_of(path: Path, expected: InputSpec | None) -> bytes:
    """Return the bytes of an archive's `data.pkl`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_kind([member.filename for member in members], path, expected)
            pickled = _data_pickle(members, path)
            with archive.open(pickled) as stream:
                return stream.read(MAX_PICKLE_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as fault:
        # RuntimeError: encrypted; ValueError: an impossible offset.
        raise ModelError(
            "a damaged zip archive, or one that was cut short", got=str(fault)[:200], where=path
        ) from fault


def _check_kind(names: Sequence[str], path: Path, expected: InputSpec | None) -> None:
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise _refusal(
            "a TorchScript archive holds code of its own, which Litmus does not run",
            export_line("torchscript", path, expected),
            path,
        )
    exported = any(name.startswith("models/") for name in inner)
    if exported or any(name.startswith("serialized_exported_program") for name in names):
        raise _refusal(
            "a .pt2 archive may hold a pickle, which may run any code",
            export_line("pt2", path, expected),
            path,
        )


def _data_pickle(members: Sequence[zipfile.ZipInfo], path: Path) -> zipfile.ZipInfo:
    """Return the one pickle of an archive that is no bomb."""
    pickles = [m for m in members if m.filename.partition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or len(members) > _MAX_MEMBERS:
        got = f"{len(pickles)} data.pkl among {len(members)} members"
        raise ModelError("not a PyTorch archive", expected="one data.pkl", got=got, where=path)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ModelError("a compressed archive, which PyTorch does not write", where=path)
    claimed, size = sum(member.file_size for member in members), path.stat().st_size
    if claimed > size or pickles[0].file_size > MAX_PICKLE_BYTES:
        raise ModelError(
            "the archive claims more than it can hold",
            expected=f"at most {size} bytes, and {MAX_PICKLE_BYTES} of a pickle",
            got=f"{claimed} bytes, and {pickles[0].file_size} of a pickle",
            where=path,
        )
    return pickles[0]


def _check_content(content: PickleContent, path: Path, expected: InputSpec | None) -> None:
    if content.system:
        raise ModelError(
            "its pickle reaches for the system: whoever opens it runs what somebody put there",
            got=", ".join(content.system[:_SHOWN]),
            where=path,
        )
    if content.foreign:
        more = len(content.foreign) - _SHOWN
        listed = ", ".join(content.foreign[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise _refusal(
            f"it holds pickled objects ({listed}) and not weights alone, which may run any code",
            export_line("module", path, expected),
            path,
        )


def _refusal(what: str, line: str, path: Path) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{what}; where you trust whoever made it, export it to ONNX: {line}", where=path
    )
