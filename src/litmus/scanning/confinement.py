"""What a file's process may still do: read the file, and answer; the kernel refuses the rest.

The model is an attacker's, and so is its process as soon as a parser has a hole. `find_sandbox`
tells what this kernel grants without privilege; a `Cell` gives up everything else for good.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from litmus.formats.onnx_external import may_refer_to_files
from litmus.formats.preprocessing import sidecar_of
from litmus.scanning import landlock, seccomp
from litmus.scanning.results import Sandbox
from litmus.scanning.system_calls import give_up_privileges

__all__ = ["Cell", "code_folders", "find_sandbox", "network_files", "readable_for"]

# The resolver's files and libraries, and what the links in folders of certificates lead to.
_NETWORK: Final = (
    *(
        f"/etc/{name}"
        for name in ("hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf")
    ),
    *("/etc/services", "/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64"),
    *("/etc/ssl/certs", "/etc/pki", "/usr/share/ca-certificates"),
    "/usr/local/share/ca-certificates",
)


def readable_for(path: Path, format_: str, beside: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what may be read to score a model's file: that file, its sidecar, and `beside`.

    And its folder where it may name other files there. Whatever a process has opened before stays
    open, the pipe for its answer among it. Raises OSError where the file can't be read.
    """
    if format_ == "onnx" and may_refer_to_files(path):
        return (str(path), str(path.parent), *beside)
    sidecar = sidecar_of(path)
    return (str(path), *([str(sidecar)] if sidecar.exists() else []), *beside)


class Cell:
    """The walls around this process: what no file needs goes at once, the rest in `close`.

    So that a process that waits for its file has most of the work behind it. It has given up
    privileges before, or its parent has. Raises OSError where what `sandbox` grants can't be had:
    nothing may be parsed then.
    """

    def __init__(self, sandbox: Sandbox, *, network: bool = False) -> None:
        self._ruleset: int | None = None
        if sandbox.landlock:
            self._ruleset = landlock.ruleset(sandbox.landlock, network=network)
        if sandbox.seccomp:
            seccomp.restrict(network=network)

    def close(self, readable: Sequence[str]) -> None:
        """Give up all files but these, and those that are open; raises OSError."""
        if self._ruleset is not None:
            landlock.restrict(self._ruleset, readable)
            self._ruleset = None


def find_sandbox() -> Sandbox:
    """Return what holds here, tried by processes that end then.

    This one gives up privileges that programs which it runs might gain.
    """
    with contextlib.suppress(OSError):  # where that fails, so does all else
        give_up_privileges()
    refused: list[tuple[str, str]] = []
    version, filters = 0, True
    try:
        version = landlock.abi()
        _try(Sandbox(landlock=version, seccomp=False))
    except OSError as fault:
        refused.append(("landlock", str(fault.strerror)))
        version = 0
    try:
        # Compiled here, once for all children.
        seccomp.compiled(network=False)
        _try(Sandbox(landlock=0, seccomp=True))
    except OSError as fault:
        refused.append(("seccomp", str(fault.strerror)))
        filters = False
    return Sandbox(landlock=version, seccomp=filters, refused=tuple(refused))


def _try(sandbox: Sandbox) -> None:
    """Have a child restrict itself; raises the OSError that it meets."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            Cell(sandbox).close(())
            code = 0
        except OSError as fault:
            code = fault.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else f"ended by signal {-code}")


def network_files() -> tuple[str, ...]:
    """Return what tells a process where hosts are and which certificates are trusted."""
    import ssl  # no file needs it

    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR among them
    certificates = (paths.cafile, paths.capath, paths.openssl_cafile, paths.openssl_capath)
    library = str(Path(os.__file__).parent)  # some of it is imported when it is needed
    named = [*_NETWORK, *certificates, library]
    return tuple(dict.fromkeys(name for name in named if name and Path(name).exists()))


def code_folders() -> tuple[str, ...]:
    """Return the folders that Python and its libraries are in, for what imports as it goes."""
    named = [sys.prefix, sys.base_prefix, *sys.path, "/lib", "/lib64", "/usr/lib"]
    return tuple(dict.fromkeys(name for name in named if name and Path(name).exists()))
