from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from litmus.datasets import ImageDataset
from litmus.datasets.clean import load_clean_images
from litmus.detectors import DETECTORS, Detector, InversionDetector, fit, load_detector
from litmus.detectors.base import Measurement
from litmus.detectors.fused import FusedDetector
from litmus.detectors.max_margin import MaxMarginDetector
from litmus.errors import DetectorError, UnsupportedModelError, UsageError
from litmus.evaluation import evaluate
from litmus.formats import onnx_file, zoo_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.torch_gradients import TorchGradients
from litmus.metrics import auc
from litmus.models import Images, InputSpec
from litmus.reports.detectors import DETECTOR_REPORTS, Described, fit_command, fitted_text
from litmus.scanning import Scored, scan
from litmus.zoo import Zoo

SPEC = InputSpec(channels=1, height=28, width=28, num_classes=10)


class Blind:
    """A model without a last layer: only its answers can be had."""

    outputs = "logits"

    def __init__(self, model: zoo_file.ZooModel) -> None:
        self._model = model
        self.input_spec: InputSpec = model.input_spec

    def __call__(self, images: Images) -> NDArray[Any]:
        return self._model(images)

    def last_layer(self) -> None:
        raise UnsupportedModelError("no last layer here")


QUICK: dict[str, Any] = {
    "num_patterns": 2,
    "epochs": 20,
    "max_margin.models": 9,
    "max_margin.steps": 6,
    "max_margin.starts": 2,
    "neural_cleanse.models": 6,
    "neural_cleanse.steps": 20,
    "neural_cleanse.images_per_class": 8,
    "neural_cleanse.batch_images": 8,
    "neural_cleanse.patience": 2,
}
LIGHT = ("ulp", "last_layer", "stamps")
GRADIENTS = (*LIGHT, "max_margin")
ALL = (*GRADIENTS, "neural_cleanse")


@pytest.fixture(scope="module")
def fused(small_zoo: Zoo) -> FusedDetector:
    detector = fit(small_zoo, "fused", seed=1, parts=[*ALL], **QUICK)
    assert isinstance(detector, FusedDetector)
    return detector


@pytest.fixture(scope="module")
def model(small_zoo: Zoo) -> zoo_file.ZooModel:
    return zoo_file.load(small_zoo.split("test")[0].path)


def test_every_set_of_parts_that_can_occur_is_combined_and_calibrated(
    fused: FusedDetector, small_zoo: Zoo
) -> None:
    always = {"ulp", "stamps"}
    subsets = {s for size in range(6) for s in combinations(ALL, size) if always <= set(s)}
    assert set(fused.combinations) == subsets == set(fused.held_out_by_parts())
    clean = sum(not entry.backdoored for entry in small_zoo.split("train"))
    for parts, combination in fused.combinations.items():
        n = 6 if "neural_cleanse" in parts else 9 if "max_margin" in parts else clean
        assert len(combination.calibration.scores) == n
        assert (combination.held_out["n_clean"], combination.held_out["n_backdoored"]) == (n, n)
        assert (combination.weights >= 0).all()
    # The headline is what a scan asks by default.
    assert fused.held_out == fused.combinations[LIGHT].held_out
    assert fused.calibration == fused.combinations[LIGHT].calibration


def test_what_takes_long_reads_fewer_models_of_which_more_are_more(fused: FusedDetector) -> None:
    read = {part: detector.unseen for part, detector in fused.parts.items()}
    ids = {part: {entry.id for entry in heard.entries} for part, heard in read.items() if heard}
    assert ids["neural_cleanse"] < ids["max_margin"] < ids["last_layer"] == ids["ulp"]


def test_what_is_fused_is_what_members_said_of_models_they_had_not_seen(
    fused: FusedDetector, small_zoo: Zoo
) -> None:
    heard = fused.unseen
    assert heard is not None
    assert len(heard.entries) == len(small_zoo.split("train"))
    for place in (0, 7):
        measured = fused.measure(zoo_file.load(heard.entries[place].path))
        member = heard.members[place]
        assert measured.member_scores[member] == pytest.approx(heard.scores[place], abs=1e-2)
    backdoored = [entry.backdoored for entry in heard.entries]
    np.testing.assert_array_equal(
        np.sort(fused.calibration.scores), np.sort(heard.scores[~np.array(backdoored)])
    )
    assert auc(heard.scores, backdoored) == fused.held_out["auc"]


def test_more_parts_are_asked_as_more_is_there(
    fused: FusedDetector, model: zoo_file.ZooModel, digits: ImageDataset
) -> None:
    able = {
        LIGHT: fused,
        GRADIENTS: fused.at_effort("thorough"),
        ALL: fused.at_effort("thorough", images=True).with_images(digits.test),
    }
    for parts, detector in able.items():
        measurement = detector.measure(model)
        assert (detector.asked, tuple(measurement.parts)) == (parts, parts)
        own = detector.parts
        expected = fused.combinations[parts].weights @ np.array(
            [own[part].measure(model).member_scores for part in parts]
        )
        expected += fused.combinations[parts].bias
        np.testing.assert_allclose(measurement.member_scores, expected)
        judgement = detector.judge(measurement, fpr=0.2)
        calibration = fused.combinations[parts].calibration
        assert judgement.p_value == calibration.p_value(measurement.member_scores)
        assert detector.calibration == calibration
        held_out = fused.combinations[parts].held_out
        assert detector.held_out == held_out
        assert judgement.notes[0].startswith(f"fused from {', '.join(parts)}: held-out AUC ")
        assert f"on {held_out['n_clean']} clean" in judgement.notes[0]
        assert len(judgement.notes) == 1 + len(ALL) - len(parts)


def test_images_are_for_parts_that_are_asked(fused: FusedDetector) -> None:
    read = replace(fused, parts={p: _without_images(d) for p, d in fused.parts.items()})
    assert not read.lacks_images
    assert not read.at_effort("thorough").lacks_images
    assert read.at_effort("thorough", images=True).lacks_images


def _without_images(detector: Detector) -> Detector:
    return replace(detector, clean=None) if isinstance(detector, InversionDetector) else detector


def test_a_part_that_the_model_does_not_permit_is_left_out_and_named(
    fused: FusedDetector, model: zoo_file.ZooModel
) -> None:
    measurement = fused.measure(Blind(model))  # type: ignore[arg-type]
    assert tuple(measurement.parts) == ("ulp", "stamps")
    judgement = fused.judge(measurement, fpr=0.2)
    alone = fused.combinations["ulp", "stamps"].calibration
    assert judgement.p_value == alone.p_value(measurement.member_scores)
    assert any("without last_layer: no last layer here" in note for note in judgement.notes)
    again = Measurement.from_json(measurement.to_json(), fused.input_spec)
    assert fused.judge(again, fpr=0.2) == judgement


def test_a_part_that_fails_or_takes_too_long_is_left_out_and_named(
    fused: FusedDetector, model: zoo_file.ZooModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    alarm = signal.getsignal(signal.SIGALRM)
    part = fused.parts["max_margin"]
    assert isinstance(part, MaxMarginDetector)
    slow = replace(part, settings={"steps": 10**6, "starts": 50})
    hurried = replace(fused, parts={**fused.parts, "max_margin": slow}).at_effort(
        "thorough", seconds=0.5
    )
    measurement = hurried.measure(model)
    assert time.monotonic() - started < 20
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (
        alarm,
        (0.0, 0.0),
    )
    assert tuple(measurement.parts) == LIGHT
    assert measurement.left_out["max_margin"] == "it takes longer than 0.5 seconds"
    # A network whose gradients are no numbers.
    broken = Blind(model)
    broken.last_layer = model.last_layer  # type: ignore[method-assign, assignment]
    infinite = nn.Sequential(model.torch_module(), Infinite())
    broken.gradients = lambda: TorchGradients(infinite, model.input_spec)  # type: ignore[attr-defined]
    measurement = fused.at_effort("thorough").measure(broken)  # type: ignore[arg-type]
    assert tuple(measurement.parts) == LIGHT
    assert "are not numbers" in measurement.left_out["max_margin"]


class Infinite(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits / 0


def test_nothing_to_ask_is_unsupported(small_zoo: Zoo, model: zoo_file.ZooModel) -> None:
    margins = {name: value for name, value in QUICK.items() if name.startswith("max_margin")}
    only = FusedDetector.fit(small_zoo, parts=["max_margin"], **margins)
    with pytest.raises(UnsupportedModelError, match=r"no part .*needs --effort standard"):
        only.measure(model)
    assert only.at_effort("thorough").measure(model).parts == ("max_margin",)
    # All that there is stands for it, also where none of it is asked.
    assert only.held_out == only.at_effort("thorough").held_out


def test_a_made_up_set_of_parts_is_refused(fused: FusedDetector) -> None:
    made_up = Measurement(member_scores=[0.0] * 5, scope_distance=1.0, parts=("ulp", "luck"))
    with pytest.raises(ValueError, match="luck"):
        fused.calibration_of(made_up.parts)


def test_a_file_holds_all_parts(fused: FusedDetector, model: zoo_file.ZooModel) -> None:
    from litmus.artifacts import parse_tensors

    arrays, header = parse_tensors(fused.to_bytes(), "memory", DetectorError)
    again = DETECTORS["fused"].from_file(arrays, header)
    assert isinstance(again, FusedDetector)
    assert again.measure(model) == fused.measure(model)
    assert again.judge(again.measure(model), fpr=0.2) == fused.judge(fused.measure(model), fpr=0.2)
    assert again.unseen is None


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "part": lambda arrays: arrays.pop("ulp.patterns"),
    "combination": lambda arrays: arrays.pop("ulp+stamps.combined.weights"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_named_as_such(what: str, fused: FusedDetector) -> None:
    from litmus.artifacts import parse_tensors

    arrays, header = parse_tensors(fused.to_bytes(), "memory", DetectorError)
    DAMAGE[what](arrays)  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match="malformed"):
        FusedDetector.from_file(arrays, header)


def test_parts_and_settings_must_be_known(small_zoo: Zoo) -> None:
    unused: dict[str, Any] = {"max_margin.steps": 3}
    unknown: dict[str, Any] = {"max_margin.stops": 3}
    for parts in ("ulp+luck", "ulp+fused", "ulp+ulp", ""):
        with pytest.raises(UsageError, match="impossible parts"):
            FusedDetector.fit(small_zoo, parts=parts)
    with pytest.raises(UsageError, match=r"a setting of no part .*max_margin.steps"):
        FusedDetector.fit(small_zoo, parts="ulp+last_layer", **unused)
    with pytest.raises(UsageError, match=r"unknown setting .*got stops"):
        FusedDetector.fit(small_zoo, parts="max_margin+ulp", **unknown)


def test_defaults_name_the_settings_of_every_part() -> None:
    defaults = FusedDetector.defaults()
    assert defaults["parts"] == "ulp+last_layer+stamps+trigger_search+max_margin+neural_cleanse"
    assert defaults["num_patterns"] == DETECTORS["ulp"].defaults()["num_patterns"]
    assert (defaults["max_margin.models"], defaults["neural_cleanse.models"]) == (100, 40)
    assert defaults["neural_cleanse.steps"] == 200
    assert set(QUICK) < set(defaults)
    assert not any(name.endswith((".members", ".folds")) for name in defaults)


def test_an_evaluation_asks_what_it_is_told_to(
    fused: FusedDetector, small_zoo: Zoo, digits: ImageDataset
) -> None:
    few = replace(small_zoo, entries=small_zoo.split("test")[:4])
    quick = evaluate(few, {"fused": fused}, fpr=0.2)
    everything = evaluate(few, {"fused": fused}, fpr=0.2, effort="thorough", images=digits.test)
    for evaluation, parts in ((quick, LIGHT), (everything, ALL)):
        notes = {m.judgement.notes[0].split(":")[0] for m in evaluation.models["fused"]}
        assert notes == {f"fused from {', '.join(parts)}"}


def test_a_report_of_it_has_every_set_of_parts(fused: FusedDetector) -> None:
    lines = fitted_text(fused, Path("f.litmus")).splitlines()
    mine = Described(name="mine", detector=fused, sha256="a", num_bytes=1, bundled=False)
    table = DETECTOR_REPORTS["text"]([mine], full=True).splitlines()
    for text in (lines, table):
        rows = [
            line
            for line in text
            if "neural_cleanse" in line
            and not any(word in line for word in ("settings", "--set", "neural_cleanse."))
        ]
        assert len(rows) == 4
        assert all("--effort thorough --images" in row and "6 clean + 6" in row for row in rows)
        assert any(
            "ulp, stamps, max_margin " in line and " --effort standard " in line for line in text
        )


def test_an_exported_model_is_scanned_thoroughly(
    fused: FusedDetector, small_zoo: Zoo, digits: ImageDataset, tmp_path: Path
) -> None:
    """From a zoo to the answer on somebody's file, with images in a folder."""
    detector = tmp_path / "fused.litmus"
    detector.write_bytes(fused.to_bytes())
    for label in range(10):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        for place in digits.test.of_class(label)[:8].tolist():
            Image.fromarray(digits.test.images[place, 0].numpy()).save(folder / f"{place}.png")
    entries = small_zoo.split("test")
    paths = []
    for bad in (False, True):
        entry = next(e for e in entries if e.backdoored is bad)
        paths.append(tmp_path / f"{bad}.onnx")
        export_onnx(zoo_file.load(entry.path), small_zoo.input_spec, paths[-1])
    results = list(
        scan(paths, detector=detector, fpr=0.2, effort="thorough", images=tmp_path / "images")
    )
    own = fused.at_effort("thorough", images=True).with_images(
        load_clean_images(tmp_path / "images", SPEC)
    )
    for result, path in zip(results, paths, strict=True):
        assert isinstance(result, Scored)
        assert result.score == pytest.approx(own.score(onnx_file.load(path)), abs=0.05)
        assert any(note.startswith(f"fused from {', '.join(ALL)}: ") for note in result.notes)
    clean, backdoored = (r.score for r in results if isinstance(r, Scored))
    assert backdoored > clean


def other(zoo: Zoo) -> Zoo:
    """The same models, as those of another zoo."""
    return replace(zoo, recipe={**zoo.recipe, "name": "other"})


@pytest.fixture(scope="module")
def handed_on(
    fused: FusedDetector, small_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory
) -> FusedDetector:
    """The light parts of a fused detector's file, and max_margin, which that is left without."""
    light = fit(small_zoo, "fused", seed=1, parts=[*LIGHT], num_patterns=2, epochs=20)
    file = tmp_path_factory.mktemp("parts") / "light.litmus"
    file.write_bytes(light.to_bytes())
    settings: dict[str, Any] = {k: v for k, v in QUICK.items() if k.startswith("max_margin")}
    settings |= {"last_layer.models": 8, "parts": [*GRADIENTS]}
    made = fit(other(small_zoo), "fused", parts_from=file, **settings)
    assert isinstance(made, FusedDetector)
    return made


def test_parts_of_another_zoo_are_kept_and_calibrated_on_this_one(
    handed_on: FusedDetector, fused: FusedDetector, small_zoo: Zoo
) -> None:
    assert set(handed_on.combinations) == {
        s for size in range(5) for s in combinations(GRADIENTS, size) if {"ulp", "stamps"} <= set(s)
    }
    for part in LIGHT:
        kept = handed_on.parts[part]
        for name, array in fused.parts[part].arrays().items():
            np.testing.assert_allclose(kept.arrays()[name], array, atol=1e-6)
        heard = kept.unseen
        assert heard is not None
        assert len(heard.entries) == (16 if part == "last_layer" else 24)
        # Each member judges a fold of its own, as those of the parts that are fitted here.
        assert set(heard.members) == set(range(5))
        for place in (0, 9):
            measured = kept.measure(zoo_file.load(heard.entries[place].path))
            assert measured.member_scores[heard.members[place]] == heard.scores[place]
            assert measured.scope_distance == heard.distances[place]
        clean = np.sort(heard.scores[~heard.backdoored])
        np.testing.assert_array_equal(np.sort(kept.calibration.scores), clean)
    assert handed_on.scope["calibrated_on"] == {"zoo": "other", "zoo_seed": 0, "num_models": 24}
    for name in ("zoo", "recipe", "triggers"):
        assert handed_on.scope[name] == fused.scope[name]
    assert "calibrated_on" not in handed_on.parts["max_margin"].scope


def test_a_detector_with_parts_of_another_says_so(handed_on: FusedDetector, tmp_path: Path) -> None:
    file = tmp_path / "made.litmus"
    file.write_bytes(handed_on.to_bytes())
    read = load_detector(file)
    command = fit_command(read, file.name)
    assert command is not None
    assert "parts_from='light.litmus'" in command or "--parts-from light.litmus" in command
    described = Described(name="made", detector=read, sha256="0" * 64, num_bytes=1, bundled=False)
    assert "24 other models, zoo other" in DETECTOR_REPORTS["text"]([described], full=True)


def test_parts_are_refused_where_they_cannot_be_taken(
    handed_on: FusedDetector, small_zoo: Zoo, tmp_path: Path
) -> None:
    file = tmp_path / "parts.litmus"
    file.write_bytes(handed_on.to_bytes())
    with pytest.raises(UsageError, match="was fitted on this zoo"):
        fit(small_zoo, "fused", parts=[*LIGHT], parts_from=file)
    with pytest.raises(UsageError, match="a part that is fitted already"):
        fit(other(small_zoo), "fused", parts=[*LIGHT], parts_from=file, epochs=3)
    with pytest.raises(UsageError, match="only a fused detector has parts"):
        fit(other(small_zoo), "last_layer", parts_from=file)
    with pytest.raises(UsageError, match="of another shape"):
        replace(handed_on.parts["stamps"], input_spec=replace(SPEC, height=8)).calibrated_on(
            other(small_zoo)
        )


def test_the_promise_is_extended_to_models_of_a_zoo_that_it_never_saw(
    fused: FusedDetector, small_zoo: Zoo, tmp_path: Path
) -> None:
    more = other(small_zoo)
    seen: list[tuple[int, int]] = []
    wider = fused.also_calibrated_on(more, on_progress=lambda *done: seen.append(done))
    clean = [entry for entry in more.split("train") if not entry.backdoored]
    assert seen[-1] == (len(clean), len(clean))
    assert wider.calibration.sizes == (*fused.calibration.sizes, len(clean))
    file = tmp_path / "wider.litmus"
    file.write_bytes(wider.to_bytes())
    read = load_detector(file)
    entry = clean[0]
    for effort in ("quick", "standard"):
        before, after = fused.at_effort(effort), read.at_effort(effort)
        measured = after.measure(zoo_file.load(entry.path))
        was, now = (each.judge(measured, fpr=0.5) for each in (before, after))
        calibration = after.calibration
        own = calibration.groups == 1
        # The model stands among its own population, judged by one of the members.
        assert np.isclose(calibration.scores[own][:, None], measured.member_scores).any()
        assert measured.scope_distance <= calibration.scope_limit
        assert now.p_value >= max(was.p_value, 2 / (1 + len(clean)))
    assert read.knows(more)
    with pytest.raises(UsageError, match="knows its models"):
        read.also_calibrated_on(more)
