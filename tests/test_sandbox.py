"""Confinement is tried out: each attempt works freely, so that being denied it means something."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from litmus.detectors.candidates import Candidates
from litmus.formats.onnx_external import may_refer_to_files
from litmus.reports.scan import SCAN_REPORTS, ScanContext
from litmus.scanning import Failed, Sandbox, ScanResult, Scored, landlock, scan, seccomp
from litmus.scanning.confinement import find_sandbox, readable_for
from tests.formats.onnx_models import classifier, detector, external, save

linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="no sandbox is known for this system",
)
INTERNET = {"connect over TCP", "send by UDP"}


def run_python(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def granted() -> Sandbox:
    """What this kernel grants, which has to be all for most of these tests."""
    found = json.loads(run_python("-c", FIND))
    if found["missing"]:
        pytest.skip("; ".join(found["missing"]))
    return Sandbox(landlock=found["landlock"], seccomp=True)


FIND = """
import json
from litmus.scanning.confinement import find_sandbox
found = find_sandbox()
print(json.dumps({"landlock": found.landlock, "missing": found.missing}))
"""


@pytest.fixture(scope="module")
def outcome(
    granted: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, list[str]]]:
    root = tmp_path_factory.mktemp("s")  # short: a socket's path has 108 bytes
    (root / "f").mkdir()
    (root / "outside").write_text("secret")
    (root / "f" / "link").symlink_to("../outside")
    for name in ("model", "beside"):
        (root / "f" / name).write_text(name)
    told: dict[str, Any] = json.loads(run_python("-m", "tests.sandbox_attempts", root / "f"))
    return told


@linux
def test_a_confined_process_is_denied_what_a_free_one_may_do(
    outcome: dict[str, dict[str, list[str]]],
) -> None:
    assert len(outcome["denied"]) > 20
    for name, (freely, confined, with_network) in outcome["denied"].items():
        assert (name, freely, confined) == (name, "done", "PermissionError")
        expected = "done" if name in INTERNET else "PermissionError"
        assert (name, with_network) == (name, expected)


@linux
def test_it_can_make_no_call_that_scoring_does_not_need(
    outcome: dict[str, dict[str, list[str]]],
) -> None:
    for name, (freely, *confined) in outcome["never"].items():
        assert freely != "done"
        assert (name, confined) == (name, ["PermissionError"] * 2)
    if platform.machine() == "x86_64":
        assert outcome["ended"]["a call of the x32 ABI"][1:] == ["ended by SIGSYS"] * 2


@linux
def test_it_can_do_what_scoring_takes_and_abort(
    outcome: dict[str, dict[str, list[str]]],
) -> None:
    for name, came in outcome["allowed"].items():
        assert (name, came) == (name, ["done"] * 3)
    assert outcome["ended"]["abort"] == ["ended by SIGABRT"] * 3


@pytest.mark.parametrize(
    ("machine", "numbers"),
    [("x86_64", {"openat": 257, "execve": 59}), ("aarch64", {"openat": 56, "execve": 221})],
)
@pytest.mark.parametrize("network", [False, True])
def test_the_filter_decides_by_number_and_architecture(
    machine: str, numbers: dict[str, int], network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    seccomp.compiled.cache_clear()
    program = seccomp.compiled(network=network)
    seccomp.compiled.cache_clear()
    audit = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
    allow, refuse, kill = 0x7FFF0000, 0x50001, 0x80000000
    own = audit.pop(machine)
    (other,) = audit.values()
    socket_number = {"x86_64": 41, "aarch64": 198}[machine]
    assert answer(program, own, numbers["openat"], 0, 0, 0) == allow
    assert answer(program, own, numbers["openat"], 0, 0, 1) == refuse
    assert answer(program, own, numbers["execve"]) == refuse
    assert answer(program, own, 435) == 0x50000 | 38  # clone3: ENOSYS
    assert answer(program, own, socket_number, 2) == (allow if network else refuse)
    assert answer(program, own, socket_number, 1) == refuse
    assert answer(program, other, numbers["openat"], 0, 0, 0) == kill
    assert answer(program, own, 9999) == refuse
    if machine == "x86_64":
        assert answer(program, own, 0x40000000 + 39) == kill


def answer(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter says to a call: the machine that the kernel runs, as far as it is used."""
    words = {0: number, 4: architecture}
    words |= {16 + 8 * i: value for i, value in enumerate(arguments)}
    at, accumulator = 0, 0
    while True:
        step = program[8 * at : 8 * at + 8]
        code, then, otherwise = int.from_bytes(step[:2], sys.byteorder), step[2], step[3]
        value = int.from_bytes(step[4:], sys.byteorder)
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = words.get(value, 0)
            at += 1
            continue
        holds = {0x15: accumulator == value, 0x35: accumulator >= value}
        at += 1 + (then if holds.get(code, bool(accumulator & value)) else otherwise)


@pytest.fixture
def detector_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.litmus"
    path.write_bytes(detector().to_bytes())
    return path


@linux
def test_each_result_says_what_held(tmp_path: Path, granted: Sandbox, detector_file: Path) -> None:
    save(classifier(), tmp_path / "models" / "a.onnx")
    (tmp_path / "models" / "b.onnx").write_bytes(b"broken")
    missing = tmp_path / "missing.onnx"
    scored, failed, unopened = scan([tmp_path / "models", missing], detector=detector_file)
    assert isinstance(scored, Scored)
    assert isinstance(failed, Failed)
    assert scored.sandbox == failed.sandbox == granted
    assert unopened.sandbox is None
    assert granted.held == (f"landlock {granted.landlock}", "seccomp")


def test_a_file_alone_is_granted_unless_it_may_name_others(tmp_path: Path) -> None:
    plain = save(classifier(), tmp_path / "plain.onnx")
    naming = external(tmp_path, "weights.bin")
    assert not may_refer_to_files(plain)
    assert readable_for(plain, "onnx") == (str(plain),)
    assert readable_for(naming, "onnx") == (str(naming), str(tmp_path))
    assert readable_for(naming, "zoo") == (str(naming),)
    sidecar = tmp_path / "plain.litmus.toml"
    sidecar.touch()
    assert readable_for(plain, "onnx") == (str(plain), str(sidecar))
    # The word may lie where one piece of a file ends and the next begins.
    far = tmp_path / "far.onnx"
    far.write_bytes(bytes(2**20 - 3) + b"location")
    assert may_refer_to_files(far)


# Has the kernel answer some calls with ENOSYS, as one without them does, in all that follows.
REFUSED = """
import ctypes, json, os, struct, sys
numbers = json.loads(sys.argv.pop(1))
steps = [(0x20, 0, 0, 0)]
for number in numbers:
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50026)]
steps.append((0x06, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("@HP", len(steps), ctypes.addressof(code)), 0, 0) == 0
from litmus.cli import main
sys.argv[0] = "litmus"
main()
"""
LANDLOCK = (444, 445, 446)
SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), 0)


@linux
@pytest.mark.parametrize(
    ("numbers", "held", "missing"),
    [
        (LANDLOCK, ["seccomp"], "could read files elsewhere (landlock"),
        ([SECCOMP], ["landlock"], "could reach the network and other processes (seccomp"),
    ],
)
def test_a_kernel_without_a_mechanism_is_reported(
    tmp_path: Path, granted: Sandbox, detector_file: Path,
    numbers: Sequence[int], held: list[str], missing: str,
) -> None:  # fmt: skip
    path = save(classifier(), tmp_path / "a.onnx")
    options = ["--detector", str(detector_file), "--fail-on", "never"]
    report = tmp_path / "report.json"
    text = run_python(
        "-c", REFUSED, json.dumps(list(numbers)), "scan", path, *options, "--report",
        f"json={report}",
    )  # fmt: skip
    (result,) = json.loads(report.read_text())["results"]
    assert result["status"] == "scored"
    assert [name.split()[0] for name in result["sandbox"]["held"]] == held
    missing += ": Function not implemented)"
    assert result["sandbox"]["missing"] == [missing]
    said = f"The sandbox was incomplete here: a hostile file {missing}."
    assert said in " ".join(text.split())


# A child that is given a file which Landlock can't grant, since it is not there.
UNCONFINED = """
import json, os
from types import SimpleNamespace
from litmus.scanning.confinement import find_sandbox
from litmus.scanning.mother import _enclosed
reader, writer = os.pipe()
path = "missing.onnx"
with os.fdopen(writer, "w") as file:
    json.dump({"path": path, "format": "onnx", "readable": [path]}, file)
print(json.dumps(_enclosed(SimpleNamespace(sandbox=find_sandbox(), network=False), reader)))
"""


@linux
def test_what_can_not_be_confined_is_not_parsed(granted: Sandbox) -> None:
    assert json.loads(run_python("-c", UNCONFINED)) == {
        "status": "failed",
        "error": "its process can't be confined: No such file or directory",
    }


def nothing(*arguments: Any, **options: Any) -> int:
    raise OSError(38, "Function not implemented")


def test_where_nothing_is_granted_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "system_call", nothing)
    monkeypatch.setattr(seccomp, "compiled", nothing)
    found = find_sandbox()
    assert found.held == ()
    assert [name for name, _ in found.refused] == ["landlock", "seccomp"]


@pytest.mark.parametrize("name", ["text", "markdown", "html"])
def test_reports_name_what_is_missing_and_only_that(name: str, tmp_path: Path) -> None:
    whole = Sandbox(landlock=7, seccomp=True)
    lacking = Sandbox(landlock=0, seccomp=True, refused=(("landlock", "Not supported"),))
    context = ScanContext(candidates=Candidates.bundled(), fpr=0.05)

    def report(*sandboxes: Sandbox | None) -> str:
        results: list[ScanResult] = [
            Failed(path=Path("a"), error="broken", sandbox=each) for each in sandboxes
        ]
        return SCAN_REPORTS[name](results, context)

    said = "The sandbox was incomplete here: a hostile file could read files elsewhere"
    assert said in report(None, whole, lacking, lacking)
    assert report(lacking, lacking).count(said) == 1
    assert said not in report(None, whole)
    assert "andbox" not in report(whole)
