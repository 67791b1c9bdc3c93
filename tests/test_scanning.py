from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper, numpy_helper

from litmus.architectures import ARCHITECTURES
from litmus.artifacts import encode_tensors, sha256_of
from litmus.errors import DetectorError, UsageError
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.zoo_file import ZOO_FORMAT, load, saved_weights
from litmus.models import InputSpec
from litmus.scanning import Failed, Limits, ScanResult, Scored, Skipped, exit_code, scan
from litmus.scanning.judge import Judge
from litmus.scanning.targets import Target
from tests.conftest import children_running
from tests.formats.onnx_models import SPEC, classifier, detector, endless, greedy, save


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "tiny.litmus"
    path.write_bytes(detector().to_bytes())
    return path


@pytest.fixture
def run(detector_file: Path) -> Callable[..., list[ScanResult]]:
    def run(*paths: Path, **options: Any) -> list[ScanResult]:
        return list(scan(paths, **{"detector": detector_file, **options}))

    return run


Run = Callable[..., list[ScanResult]]


def not_a_number() -> onnx.ModelProto:
    """0 / 0 in one class."""
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "zero"))
    model.graph.node.extend(
        [
            helper.make_node("Mul", ["logits", "zero"], ["m"]),
            helper.make_node("Div", ["m", "zero"], ["y"]),
        ]
    )
    model.graph.output[0].name = "y"
    return model


def test_a_scored_file_carries_what_a_report_needs(tmp_path: Path, run: Run) -> None:
    path = save(classifier(), tmp_path / "m.onnx")
    (result,) = run(path)
    assert isinstance(result, Scored)
    expected = detector().measure(onnx_file.load(path))
    assert result.score == pytest.approx(expected.score, abs=1e-6)
    np.testing.assert_allclose(result.log_probs, expected.log_probs, atol=1e-6)
    judgement = detector().judge(expected)
    assert (result.p_value, result.verdict) == (judgement.p_value, judgement.verdict)
    assert result.path == path
    assert result.model_sha256 == sha256_of(path)
    assert len(result.detector_sha256) == 64
    assert result.format == "onnx"
    assert 0 < result.seconds < 60
    assert "assumed: scale 1, mean 0, std 1, channels rgb" in result.notes


def test_no_broken_file_stops_the_rest(tmp_path: Path, run: Run) -> None:
    good = classifier().SerializeToString()
    other = replace(SPEC, num_classes=5)
    contents = {
        "a.onnx": good,
        "b-cut.onnx": good[: len(good) // 2],
        "c-empty.onnx": b"",
        "d-nan.onnx": not_a_number().SerializeToString(),
        "e-classes.onnx": classifier(spec=other).SerializeToString(),
        "f-custom.onnx": classifier(opset=99).SerializeToString(),
        "g-garbage.safetensors": b"garbage",
        "h-pickle.onnx": pickle.dumps([1]),
        "i-good-by-content": good,
        "notes.txt": b"not a model",
        ".hidden.onnx": good,
        "sub/j.onnx": good,
        ".git/k.onnx": good,
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "linked").symlink_to(tmp_path / "sub", target_is_directory=True)
    results = run(tmp_path)
    kinds = {str(r.path.relative_to(tmp_path)): type(r) for r in results}
    assert kinds == {
        "a.onnx": Scored,
        "b-cut.onnx": Failed,
        "c-empty.onnx": Failed,
        "d-nan.onnx": Failed,
        "e-classes.onnx": Skipped,
        "f-custom.onnx": Skipped,
        "g-garbage.safetensors": Failed,
        "h-pickle.onnx": Skipped,
        "i-good-by-content": Scored,
        "sub/j.onnx": Scored,
    }
    assert list(kinds) == sorted(kinds)
    said = {r.path.name: getattr(r, "error", getattr(r, "reason", "")) for r in results}
    assert said["d-nan.onnx"] == "the model's outputs are not numbers (got NaN or infinity)"
    assert said["e-classes.onnx"] == (
        "the model takes 3x6x5 -> 5 classes, the detector 3x6x5 -> 4 classes"
    )
    assert "export it to ONNX" in said["h-pickle.onnx"]
    assert not any(str(tmp_path) in text for text in said.values())


def test_what_is_named_is_always_reported(tmp_path: Path, run: Run) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    os.mkfifo(tmp_path / "fifo.onnx")
    save(classifier(), tmp_path / "m.onnx")
    names = ["m.onnx", "missing.onnx", "notes.txt", "fifo.onnx", "m.onnx"]
    results = run(*(tmp_path / name for name in names))
    assert [r.path.name for r in results] == names
    assert [type(r) for r in results] == [Scored, Failed, Skipped, Skipped, Scored]
    assert results[1] == Failed(
        path=tmp_path / "missing.onnx", error="can't be read: No such file or directory"
    )


def test_files_damaged_at_random(tmp_path: Path, run: Run) -> None:
    whole = np.frombuffer(classifier(ending=("Softmax",)).SerializeToString(), np.uint8)
    random = np.random.default_rng(3)
    for i in range(40):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole) if i % 2 else 200, 3)] = random.integers(0, 256, 3)
        length = random.integers(3, len(whole)) if i % 5 == 0 else len(whole)
        (tmp_path / f"{i:02}.onnx").write_bytes(damaged[:length].tobytes())
    (tmp_path / "last.onnx").write_bytes(whole.tobytes())
    results = run(tmp_path, jobs=2, limits=Limits(wall_seconds=5, memory_mib=1024))
    assert len(results) == 41
    assert isinstance(results[-1], Scored)
    assert sum(isinstance(r, Failed) for r in results) > 5


GOOD: dict[str, Any] = {
    "status": "scored",
    "measurement": {
        "member_scores": [0.5, 0.25],
        "scope_distance": 1.0,
        "log_probs": [[-1.0, -2.0, -3.0, -4.0]] * 6,
        "parts": [],
        "left_out": {},
    },
    "notes": ["fine"],
    "classes": [],
}


def forged(**changes: Any) -> str:
    return json.dumps({**GOOD, "measurement": {**GOOD["measurement"], **changes}})


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        "9" * 10_000,
        '{"status": "scored"}',
        '{"status": "skipped", "reason": 5}',
        '{"status": "failed"}',
        json.dumps({**GOOD, "status": "safe"}),
        json.dumps({**GOOD, "notes": "fine"}),
        json.dumps({**GOOD, "notes": [1]}),
        json.dumps({**GOOD, "classes": None}),
        json.dumps({**GOOD, "measurement": [1, 2]}),
        forged(member_scores=[0.5]),
        forged(member_scores=[]),
        forged(member_scores=[0.5, float("nan")]),
        forged(member_scores=[0.5, 10**400]),
        forged(member_scores="ab"),
        forged(scope_distance=float("inf")),
        forged(log_probs=[[1.0, 2.0]]),
        forged(log_probs=[[1.0, 2.0, 3.0, float("nan")]]),
        forged(log_probs=[[1.0, 2.0, 3.0, 4.0], [1.0]]),
        forged(log_probs=5),
        forged(parts=5),
        forged(left_out=5),
        forged(left_out={str(i): "" for i in range(99)}),
    ],
)
def test_a_malformed_answer_is_a_failure(detector_file: Path, reply: str) -> None:
    answer = {"sha256": "0" * 64, "seconds": 0.1, "reply": reply}
    result = Judge(detector_file, 0.05).result(Target(path=Path("m.onnx"), format="onnx"), answer)
    assert result == Failed(path=Path("m.onnx"), error="its process gave a malformed answer")


def test_a_subverted_child_speaks_for_itself_alone(detector_file: Path) -> None:
    said = {**GOOD, "path": "other", "sha256": "f" * 64, "notes": ["\x1b[2J" + "x" * 5000] * 99}
    answer = {"sha256": "0" * 64, "seconds": 0.1, "reply": json.dumps(said)}
    result = Judge(detector_file, 0.05).result(Target(path=Path("m.onnx"), format="onnx"), answer)
    assert isinstance(result, Scored)
    assert (result.path, result.model_sha256) == (Path("m.onnx"), "0" * 64)
    assert len(result.notes) <= 50
    assert all(note.isprintable() and len(note) <= 1000 for note in result.notes)


def test_an_empty_folder_has_no_results(tmp_path: Path, run: Run) -> None:
    assert run(tmp_path) == []


@pytest.mark.parametrize("ending", [("Softmax",), ("LogSoftmax",), ("Softmax", "Abs")])
def test_the_ending_does_not_change_the_score(
    tmp_path: Path, run: Run, ending: tuple[str, ...]
) -> None:
    plain = save(classifier(gain=3), tmp_path / "a.onnx")
    other = save(classifier(gain=3, ending=ending), tmp_path / "b.onnx")
    nhwc = save(classifier(gain=3, ending=ending, layout="nhwc", batch=1), tmp_path / "c.onnx")
    scores = [r.score for r in run(plain, other, nhwc) if isinstance(r, Scored)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-3)


def test_flags_and_sidecars(tmp_path: Path, run: Run) -> None:
    flagged = save(classifier(gain=1e-2), tmp_path / "a.onnx")
    sidecar = save(classifier(gain=1e-2), tmp_path / "b.onnx")
    (tmp_path / "b.litmus.toml").write_text('scale = 255\nchannels = "bgr"\n')
    broken = save(classifier(), tmp_path / "c.onnx")
    (tmp_path / "c.litmus.toml").write_text("scale = 0\n")
    plain, from_sidecar, failed = run(flagged, sidecar, broken)
    assert isinstance(failed, Failed)
    assert "c.litmus.toml: scale: wrong value (expected a number above 0, got 0)" in failed.error
    assert isinstance(plain, Scored)
    assert isinstance(from_sidecar, Scored)
    assert plain.score != pytest.approx(from_sidecar.score, abs=1e-3)
    stated = {"scale": 255, "channels": "bgr"}
    (same,) = run(flagged, preprocessing=stated)
    assert isinstance(same, Scored)
    assert same.score == pytest.approx(from_sidecar.score)
    (overridden,) = run(sidecar, preprocessing={"scale": 1.0, "channels": "rgb"})
    assert isinstance(overridden, Scored)
    assert overridden.score == pytest.approx(plain.score)


def test_a_hanging_file_is_ended_and_the_rest_go_on(tmp_path: Path, run: Run) -> None:
    save(endless(), tmp_path / "a.onnx")
    save(classifier(), tmp_path / "b.onnx")
    started = time.monotonic()
    failed, scored = run(tmp_path, limits=Limits(wall_seconds=1.5))
    assert time.monotonic() - started < 20
    assert isinstance(failed, Failed)
    assert "than the limit of 1.5 seconds" in failed.error
    assert isinstance(scored, Scored)


def test_a_hungry_file_is_ended_and_the_rest_go_on(tmp_path: Path, run: Run) -> None:
    save(greedy(), tmp_path / "a.onnx")
    save(classifier(), tmp_path / "b.onnx")
    with (tmp_path / "c.onnx").open("wb") as file:
        file.truncate(300 * 1024**2)  # takes no place on the disk
    first, scored, last = run(tmp_path, limits=Limits(memory_mib=256))
    for failed in (first, last):
        assert isinstance(failed, Failed)
        assert failed.error == "needs more memory than the limit of 256 MiB"
    assert isinstance(scored, Scored)


def kill_when_there(find: Callable[[], Iterator[psutil.Process]], number: int) -> threading.Thread:
    def hunt() -> None:
        for _ in range(2000):
            for process in find():
                process.send_signal(number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=hunt)
    thread.start()
    return thread


def mothers() -> list[psutil.Process]:
    return children_running("litmus.scanning.mother")


def busy_children() -> Iterator[psutil.Process]:
    for mother in mothers():
        yield from (c for c in mother.children() if c.cpu_times().user > 0.2)


def test_a_crash_is_one_failed_line(tmp_path: Path, run: Run) -> None:
    save(endless(), tmp_path / "a.onnx")
    save(classifier(), tmp_path / "b.onnx")
    hunter = kill_when_there(busy_children, signal.SIGSEGV)
    failed, scored = run(tmp_path)
    hunter.join()
    assert failed == Failed(
        path=tmp_path / "a.onnx",
        error="crashed: the process that read the file was ended by SIGSEGV",
    )
    assert isinstance(scored, Scored)


def test_a_mother_that_dies_is_replaced(tmp_path: Path, run: Run) -> None:
    save(endless(), tmp_path / "a.onnx")
    save(classifier(), tmp_path / "b.onnx")

    def busy_mothers() -> Iterator[psutil.Process]:
        return (child.parent() or child for child in busy_children())

    hunter = kill_when_there(busy_mothers, signal.SIGKILL)
    failed, scored = run(tmp_path)
    hunter.join()
    assert failed == Failed(
        path=tmp_path / "a.onnx", error="the process that scores models died, code -9"
    )
    assert isinstance(scored, Scored)


def test_closing_the_generator_ends_every_process(tmp_path: Path, detector_file: Path) -> None:
    save(classifier(), tmp_path / "a.onnx")
    save(endless(), tmp_path / "b.onnx")
    results = scan(tmp_path, detector=detector_file, jobs=2)
    assert isinstance(next(results), Scored)
    while not list(busy_children()):
        time.sleep(0.01)
    family = [p for mother in mothers() for p in (mother, *mother.children(recursive=True))]
    assert len(family) >= 2
    results.close()
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_results_come_in_order_however_many_work(tmp_path: Path, run: Run) -> None:
    for i in range(12):
        save(endless() if i == 1 else classifier(seed=i), tmp_path / f"{i:02}.onnx")
    limits = Limits(wall_seconds=1)
    results = run(tmp_path, jobs=3, limits=limits)
    assert [r.path.name for r in results] == [f"{i:02}.onnx" for i in range(12)]
    assert [i for i, r in enumerate(results) if isinstance(r, Failed)] == [1]
    one = {r.path: r.score for r in run(tmp_path, limits=limits) if isinstance(r, Scored)}
    assert {r.path: r.score for r in results if isinstance(r, Scored)} == one


def test_a_module_beside_the_models_is_not_imported(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(classifier(), tmp_path / "m.onnx")
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(run(Path("m.onnx"))[0], Scored)


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = InputSpec(channels=1, height=16, width=16, num_classes=3)
    module = ARCHITECTURES["lenet5"]().build(spec, seed=2)
    header = {
        "format": ZOO_FORMAT,
        "class_names": ["a", "b", "c"],
        "spec": {"input_spec": spec.to_json(), "architecture": {"name": "lenet5"}},
    }
    path = tmp_path_factory.mktemp("zoo") / "a.safetensors"
    path.write_bytes(encode_tensors(saved_weights(module), header))
    export_onnx(load(path), spec, path.with_name("b.onnx"))
    detector_path = path.with_name("c.litmus")
    detector_path.write_bytes(detector(spec).to_bytes())
    return path


def test_a_zoo_file_scores_as_its_export_does(zoo_file: Path) -> None:
    results = list(scan(zoo_file.parent, detector=zoo_file.with_name("c.litmus")))
    assert [r.path.name for r in results] == ["a.safetensors", "b.onnx"]
    zoo, exported = results
    assert isinstance(zoo, Scored)
    assert isinstance(exported, Scored)
    assert (zoo.format, exported.format) == ("zoo", "onnx")
    assert zoo.classes == exported.classes == ("a", "b", "c")
    assert zoo.score == pytest.approx(exported.score, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"jobs": 0}, UsageError, "--jobs is impossible"),
        ({"fpr": 0.001}, UsageError, "n = 99"),
        ({"preprocessing": {"scale": -1}}, UsageError, "preprocessing: scale: wrong value"),
        ({"preprocessing": {"size": 1}}, UsageError, "preprocessing: size: unknown key"),
        ({"detector": "no such thing"}, DetectorError, "no such detector"),
    ],
)
def test_mistakes_in_the_call(
    tmp_path: Path, run: Run, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path, **options)
    assert not mothers()


@pytest.mark.parametrize("limit", [{"wall_seconds": 0}, {"memory_mib": float("nan")}])
def test_impossible_limits(limit: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="impossible limit"):
        Limits(**limit)


VERDICTS = {"s": "suspicious", "n": "no evidence found", "i": "inconclusive"}


def outcome(kind: str) -> ScanResult:
    path = Path(kind)
    if kind == "F":
        return Failed(path=path, error="broken")
    if kind == "S":
        return Skipped(path=path, reason="other")
    facts: dict[str, Any] = {"notes": (), "model_sha256": "", "detector_sha256": "", "format": ""}
    numbers = dict.fromkeys(("score", "p_value", "probability", "seconds"), 0.5)
    return Scored(path=path, verdict=VERDICTS[kind], **facts, **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "options", "code"),
    [
        ("nn", {}, 0),
        ("ni", {}, 0),
        ("nS", {}, 0),
        ("nsFS", {}, 1),
        ("nFS", {}, 2),
        ("F", {}, 2),
        ("S", {}, 3),
        ("", {}, 3),
        ("nS", {"strict": True}, 2),
        ("sS", {"strict": True}, 1),
        ("niF", {"fail_on": "inconclusive"}, 1),
        ("s", {"fail_on": "inconclusive"}, 1),
        ("si", {"fail_on": "never"}, 0),
        ("sF", {"fail_on": "never"}, 2),
    ],
)
def test_exit_codes(kinds: str, options: dict[str, Any], code: int) -> None:
    assert exit_code(map(outcome, kinds), **options) == code


def test_an_unknown_fail_on() -> None:
    with pytest.raises(UsageError, match="--fail-on"):
        exit_code([], fail_on="always")
