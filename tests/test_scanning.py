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
from litmus.detectors.candidates import Candidates
from litmus.errors import DetectorError, UsageError
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.zoo_file import ZOO_FORMAT, load, saved_weights
from litmus.models import InputSpec
from litmus.scanning import Failed, Limits, ScanResult, Scored, Skipped, exit_code, scan
from litmus.scanning.judge import Judge
from litmus.scanning.targets import Target
from tests.conftest import children_running
from tests.formats.onnx_models import (
    SPEC,
    classifier,
    detector,
    endless,
    external,
    greedy,
    save,
    weights,
)


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


def test_a_scored_file_carries_what_a_report_needs(
    tmp_path: Path, run: Run, detector_file: Path
) -> None:
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
    assert (result.detector, result.detector_sha256) == ("tiny.litmus", sha256_of(detector_file))
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
    kinds = {os.path.relpath(str(r.path), tmp_path): type(r) for r in results}
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
    "detector": "tiny.litmus",
    "input_spec": SPEC.to_json(),
    "measurement": {
        "evidence": None,
        "member_scores": [0.5, 0.25],
        "scope_distance": 1.0,
        "log_probs": [[-1.0, -2.0, -3.0, -4.0]] * 6,
        "parts": [],
        "left_out": {},
    },
    "notes": ["fine"],
    "classes": [],
    "external_files": [],
    "out_of_scope": "",
}


def judged(candidates: Candidates, reply: str, *, fpr: float = 0.05) -> ScanResult:
    answer = {"sha256": "0" * 64, "seconds": 0.1, "reply": reply}
    return Judge(candidates, fpr).result(Target(path=Path("m.onnx"), format="onnx"), answer)


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
        '{"status": "unmatched"}',
        '{"status": "unmatched", "takes": 5}',
        json.dumps({**GOOD, "status": "safe"}),
        json.dumps({**GOOD, "detector": "digits"}),
        json.dumps({**GOOD, "detector": ["tiny.litmus"]}),
        json.dumps({**GOOD, "input_spec": {**SPEC.to_json(), "num_classes": 5}}),
        json.dumps({**GOOD, "input_spec": {**SPEC.to_json(), "height": "tall"}}),
        json.dumps({**GOOD, "input_spec": None}),
        json.dumps({**GOOD, "notes": "fine"}),
        json.dumps({**GOOD, "notes": [1]}),
        json.dumps({**GOOD, "classes": None}),
        json.dumps({**GOOD, "external_files": [5]}),
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
    result = judged(Candidates.of(detector_file), reply)
    assert result == Failed(path=Path("m.onnx"), error="its process gave a malformed answer")


def test_a_subverted_child_speaks_for_itself_alone(detector_file: Path) -> None:
    said = {**GOOD, "path": "other", "sha256": "f" * 64, "notes": ["\x1b[2J" + "x" * 5000] * 99}
    result = judged(Candidates.of(detector_file), json.dumps(said))
    assert isinstance(result, Scored)
    assert (result.path, result.model_sha256) == (Path("m.onnx"), "0" * 64)
    assert len(result.notes) <= 50
    assert all(note.isprintable() and len(note) <= 1000 for note in result.notes)


def test_weights_in_other_files_have_digests_too(tmp_path: Path, run: Run) -> None:
    path = external(tmp_path / "m", "weights.bin", offset=64, length=weights().nbytes)
    (result,) = run(path)
    assert isinstance(result, Scored), result
    other = tmp_path / "m" / "weights.bin"
    assert result.external_sha256 == (("weights.bin", sha256_of(other)),)
    assert result.model_sha256 == sha256_of(path)


@pytest.mark.parametrize("name", ["../m.onnx", "/etc/passwd", "none.bin"])
def test_a_child_can_not_have_files_elsewhere_read(detector_file: Path, name: str) -> None:
    result = judged(Candidates.of(detector_file), json.dumps({**GOOD, "external_files": [name]}))
    assert isinstance(result, Failed)
    assert result.error.startswith("external data: ")


GREY = replace(SPEC, channels=1)
WIDE = replace(SPEC, width=9)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of the bundled detectors, with three shapes, one of them twice."""
    folder = tmp_path_factory.mktemp("bundle")
    shapes = {"b-colour": SPEC, "c-grey": GREY, "a-wide": WIDE, "digits": GREY, "d-colour": SPEC}
    for name, spec in shapes.items():
        (folder / f"{name}.litmus").write_bytes(detector(spec).to_bytes())
    return folder


@pytest.fixture(scope="module")
def candidates(bundle: Path) -> Candidates:
    return Candidates.bundled(bundle)


def any_size(spec: InputSpec) -> onnx.ModelProto:
    """The mean of each channel and a linear layer: runs on every height and width."""
    model = classifier(spec=replace(spec, height=1, width=1), sizes=[spec.channels, "h", "w"])
    model.graph.node[0].input[0] = "pooled"
    model.graph.node.insert(0, helper.make_node("GlobalAveragePool", ["images"], ["pooled"]))
    return model


def two_outputs(spec: InputSpec) -> onnx.ModelProto:
    """The features and the classes."""
    model = classifier(spec=spec)
    model.graph.output.insert(0, onnx.ValueInfoProto())
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, ["n", 30])
    )
    return model


def open_sizes(spec: InputSpec, *sizes: int | str) -> onnx.ModelProto:
    """Runs on images of the spec alone, whatever it declares."""
    return classifier(spec=spec, sizes=sizes, output=["n", "k"])


@pytest.fixture(scope="module")
def picked(
    tmp_path_factory: pytest.TempPathFactory, candidates: Candidates
) -> dict[str, ScanResult]:
    """What became of models of many shapes in one scan without `detector`, by name."""
    models = {
        "colour": classifier(),
        "grey": classifier(spec=GREY),
        "wide": classifier(spec=WIDE),
        "five classes": classifier(spec=replace(SPEC, num_classes=5)),
        "open colour": open_sizes(SPEC, 3, "h", "w"),
        "open wide": open_sizes(WIDE, 3, "h", 9),
        "open grey": open_sizes(GREY, "c", "h", "w"),
        "open width": open_sizes(GREY, 1, 6, "w"),
        "any size": any_size(SPEC),
        "any size, nine classes": any_size(replace(SPEC, num_classes=9)),
        "large": open_sizes(replace(SPEC, height=50, width=50), 3, "h", "w"),
        "two outputs": two_outputs(GREY),
    }
    folder = tmp_path_factory.mktemp("models")
    paths = [save(model, folder / f"{name}.onnx") for name, model in models.items()]
    return dict(zip(models, scan(paths, detector=candidates), strict=True))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("colour", "b-colour"),
        ("grey", "c-grey"),
        ("wide", "a-wide"),
        # Sizes that are left open are tried in the order of the detectors' names; these networks
        # run on one size alone.
        ("open colour", "b-colour"),
        ("open wide", "a-wide"),
        ("open grey", "c-grey"),
        ("open width", "c-grey"),
        ("any size", "a-wide"),
        ("two outputs", "c-grey"),
    ],
)
def test_each_file_is_judged_by_a_detector_of_its_shape(
    picked: dict[str, ScanResult], candidates: Candidates, model: str, name: str
) -> None:
    result = picked[model]
    assert isinstance(result, Scored), result
    assert (result.detector, result.detector_sha256) == (name, candidates.sha256[name])
    is_open = "the graph leaves the input's size open: the detector's was taken" in result.notes
    assert is_open == ("open" in model or "any" in model)
    expected = candidates.detectors[name].input_spec
    loaded = onnx_file.load(Path(str(result.path)), expected=expected)
    assert result.score == pytest.approx(detector(expected).measure(loaded).score, abs=1e-6)


def test_the_report_names_the_pick_and_others_of_its_shape(picked: dict[str, ScanResult]) -> None:
    notes = [r.notes[0] for r in picked.values() if isinstance(r, Scored)]
    assert notes[:3] == [
        "detector b-colour, picked by the model's shape, 3x6x5 -> 4 classes; "
        "of the same shape, by --detector: d-colour",
        "detector c-grey, picked by the model's shape, 1x6x5 -> 4 classes; "
        "of the same shape, by --detector: digits",
        "detector a-wide, picked by the model's shape, 3x6x9 -> 4 classes",
    ]


def test_a_model_that_fits_none_is_skipped_with_its_shape_and_what_there_is(
    picked: dict[str, ScanResult],
) -> None:
    result = picked["five classes"]
    assert result == Skipped(
        path=result.path,
        reason="no bundled detector is picked for 3x6x5 -> 5 classes: there are "
        "a-wide (3x6x9 -> 4 classes); b-colour (3x6x5 -> 4 classes); "
        "c-grey (1x6x5 -> 4 classes); d-colour (3x6x5 -> 4 classes); "
        "digits (1x6x5 -> 4 classes, by --detector only); "
        "fit one on your own images, see litmus zoo init and litmus fit",
    )
    undecided = picked["any size, nine classes"]
    assert isinstance(undecided, Skipped)
    assert "picked for 3x?x? -> 9 classes: there are" in undecided.reason


def test_an_open_network_that_runs_on_no_size_has_failed(picked: dict[str, ScanResult]) -> None:
    result = picked["large"]
    assert isinstance(result, Failed)
    assert "onnxruntime can't run it" in result.error


def test_a_named_detector_is_the_only_one(tmp_path: Path, bundle: Path) -> None:
    save(classifier(spec=GREY), tmp_path / "grey.onnx")
    (result,) = scan(tmp_path, detector=bundle / "digits.litmus")
    assert isinstance(result, Scored)
    assert result.detector == "digits.litmus"
    assert not any("picked" in note for note in result.notes)


def test_a_subverted_child_can_not_call_what_is_not_picked(candidates: Candidates) -> None:
    for name in ("digits", "e", "../tiny", "", 5, None):
        said = json.dumps({**GOOD, "detector": name, "input_spec": GREY.to_json()})
        assert isinstance(judged(candidates, said), Failed)


def test_a_subverted_child_chooses_among_what_was_loaded_for_its_own_file_alone(
    candidates: Candidates,
) -> None:
    said = {**GOOD, "detector": "c-grey", "input_spec": GREY.to_json()}
    result = judged(candidates, json.dumps(said))
    assert isinstance(result, Scored)
    # The digest is that of the file which was loaded, whatever the child says.
    assert result.detector_sha256 == candidates.sha256["c-grey"]
    contradicted = {**said, "input_spec": SPEC.to_json()}
    assert isinstance(judged(candidates, json.dumps(contradicted)), Failed)


@pytest.fixture
def coarse(tmp_path: Path, bundle: Path) -> Candidates:
    """As `candidates`, with a grey detector that was calibrated on 19 models."""
    for path in bundle.iterdir():
        (tmp_path / "coarse" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "coarse" / path.name).write_bytes(path.read_bytes())
    grey = detector(GREY)
    few = replace(
        grey.calibration,
        scores=grey.calibration.scores[:19],
        members=grey.calibration.members[:19],
    )
    content = replace(grey, calibration=few).to_bytes()
    (tmp_path / "coarse" / "c-grey.litmus").write_bytes(content)
    return Candidates.bundled(tmp_path / "coarse")


def test_a_rate_that_the_picked_detector_can_not_promise_fails_its_files_alone(
    tmp_path: Path, coarse: Candidates
) -> None:
    save(classifier(), tmp_path / "models" / "colour.onnx")
    save(classifier(spec=GREY), tmp_path / "models" / "grey.onnx")
    colour, grey = scan(tmp_path / "models", detector=coarse, fpr=0.02)
    assert isinstance(colour, Scored)
    assert grey == Failed(
        path=tmp_path / "models" / "grey.onnx",
        error="detector c-grey: --fpr: this false-positive rate can't be had (expected at least "
        "0.05, since the detector was calibrated on n = 19 clean models, and below 1, got 0.02)",
    )


def test_a_rate_that_no_candidate_can_promise_is_a_mistake_in_the_call(
    tmp_path: Path, coarse: Candidates
) -> None:
    with pytest.raises(UsageError, match="n = 99"):
        list(scan(tmp_path, detector=coarse, fpr=0.001))


def test_without_any_candidate_all_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = save(classifier(), tmp_path / "m.onnx")
    (result,) = scan(path, detector=Candidates.bundled(tmp_path / "empty"))
    assert isinstance(result, Skipped)
    assert "there are none;" in result.reason


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
    texts = ("model_sha256", "detector", "detector_sha256", "format")
    facts: dict[str, Any] = {"notes": (), **dict.fromkeys(texts, "")}
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
