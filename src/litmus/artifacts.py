"""Files that are whole or not there: atomic writes, canonical JSON, tensors with a header."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litmus.errors import LitmusError

if TYPE_CHECKING:
    import numpy as np

    # `litmus --help` shall not wait for numpy.
    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = [
    "MAX_HEADER_BYTES",
    "cache_folder",
    "canonical_json",
    "encode_tensors",
    "library_versions",
    "machine_facts",
    "parse_tensors",
    "read_header",
    "sha256_of",
    "write_atomically",
]

# The header of a safetensors file is JSON; ours take a few kilobytes.
MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
_HEADER_KEY: Final = "litmus"
_TEMPORARY_PREFIX: Final = ".writing-"
_ABANDONED_SECONDS: Final = 600


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` under a temporary name beside `path`, then rename it.

    A reader sees the old file or the new one whole, also after `kill -9` or a power cut.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY_PREFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed writers left in `folder`; a living writer's files are younger."""
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def cache_folder() -> Path:
    """Return `$LITMUS_CACHE` or the user's cache folder."""
    if folder := os.environ.get("LITMUS_CACHE"):
        return Path(folder)
    from platformdirs import user_cache_path

    return user_cache_path("litmus")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_tensors(arrays: Mapping[str, Array], header: Mapping[str, object]) -> bytes:
    """Return safetensors bytes of `arrays` with `header` as JSON in the metadata.

    The same arrays and header give the same bytes. The header gains `tensors_sha256`, the
    digest of the tensors' bytes, so that a flipped bit is found by `parse_tensors`.
    """
    import numpy as np
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    whole = {**header, "tensors_sha256": _digest(save(contiguous))}
    return bytes(save(contiguous, metadata={_HEADER_KEY: canonical_json(whole)}))


def parse_tensors(
    data: bytes, where: object, error: type[LitmusError]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays and header of bytes made by `encode_tensors`; raises `error` if damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header = _parse_header(data[:8], data[8:], where, error)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as fault:
        raise error(f"damaged tensors: {fault}", where=where) from fault
    if _digest(data) != header.get("tensors_sha256"):
        raise error(
            "the tensors are not those that were written",
            expected=f"SHA-256 {header.get('tensors_sha256')}",
            got=_digest(data),
            where=where,
        )
    return arrays, header


def read_header(path: Path, error: type[LitmusError]) -> dict[str, Any]:
    """Return the JSON header of a file made by `encode_tensors`, without its tensors."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            return _parse_header(prefix, file.read(min(length, MAX_HEADER_BYTES)), path, error)
    except OSError as fault:
        raise error(f"can't be read: {fault.strerror}", where=path) from fault


def machine_facts() -> dict[str, object]:
    """Return what a measured figure must stand beside: processor, cores, system, Python."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def library_versions() -> dict[str, str]:
    """Return the versions that a scan's report states: Litmus, Python, and what runs models."""
    from importlib.metadata import PackageNotFoundError, version

    import litmus

    versions = {"litmus": litmus.__version__, "python": platform.python_version()}
    for name in ("numpy", "onnx", "onnxruntime"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _digest(data: bytes) -> str:
    """SHA-256 of the tensor part of safetensors bytes (what follows the header)."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()


def _parse_header(
    prefix: bytes, rest: bytes, where: object, error: type[LitmusError]
) -> dict[str, Any]:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > MAX_HEADER_BYTES or len(rest) < length:
        raise error("no safetensors file, or one that was cut short", where=where)
    try:
        metadata = json.loads(rest[:length])["__metadata__"]
        header = json.loads(metadata[_HEADER_KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise error("a safetensors file without a Litmus header", where=where) from fault
    if not isinstance(header, dict):
        raise error("malformed Litmus header", expected="an object", where=where)
    return header
