from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tools.search_figure import main

from litmus.detectors import Measurement, fit
from litmus.detectors.evidence import Evidence
from litmus.detectors.trigger_search import TriggerSearchDetector, place_contrasts
from litmus.errors import DetectorError, UnsupportedModelError
from litmus.formats import zoo_file
from litmus.formats.ordered import OrderedModel
from litmus.zoo import Zoo

FAST: dict[str, Any] = {"rungs": [[2, 2], [3, 4]], "finalists": 6, "views": 12}
DOTS = 6
"""The contrasts of two forms of dots, at the end of a row."""


@pytest.fixture(scope="module")
def detector(small_zoo: Zoo) -> TriggerSearchDetector:
    found = fit(small_zoo, "trigger_search", members=2, models=6, **FAST)
    assert isinstance(found, TriggerSearchDetector)
    return found


@pytest.fixture(scope="module")
def model(small_zoo: Zoo) -> zoo_file.ZooModel:
    backdoored = next(e for e in small_zoo.split("train") if e.backdoored)
    return zoo_file.load(backdoored.path)


def test_it_says_what_it_found(detector: TriggerSearchDetector, model: zoo_file.ZooModel) -> None:
    evidence = detector.measure(model).evidence
    assert evidence is not None
    assert evidence.source_class != evidence.target_class
    assert 0 <= evidence.turned <= evidence.images
    stamped = evidence.before + evidence.mask / 255 * (
        evidence.pattern.astype(float) - evidence.before
    )
    if evidence.form in ("patch", "blend"):
        assert np.abs(stamped - evidence.after).max() <= 1.01
    assert "of the images of class" in evidence.words()
    telling, usual = (replace(evidence, turned=evidence.images, typical=t) for t in (0.3, 1.0))
    assert telling.words().endswith("of clean models, 95% reach no more than 30% with this form")
    assert usual.words().endswith("with this form, clean models reach as much")
    assert "class 7 (seven)" in replace(evidence, target_class=7).words(
        ("zero", *"123456", "seven", "8", "9")
    )


def test_a_measurement_with_evidence_crosses_a_process(
    detector: TriggerSearchDetector, model: zoo_file.ZooModel
) -> None:
    measurement = detector.measure(model)
    again = Measurement.from_json(measurement.to_json(), detector.input_spec)
    assert again.evidence == measurement.evidence
    assert again.evidence is not None
    assert measurement.evidence is not None
    assert np.array_equal(again.evidence.after, measurement.evidence.after)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("form", "spell"),
        ("target_class", 10),
        ("turned", 10**9),
        ("sources", [-1]),
        ("sources", [1, 1]),
        ("target_class", True),
        ("typical", 1.5),
        ("answers", [[1]]),
        ("answers", []),
        ("answers", [[0, 1]] * 9),
        ("loss", float("nan")),
        ("mask", {"shape": [1, 2, 2], "data": "AAAA"}),
    ],
)
def test_evidence_of_a_subverted_process_is_refused(
    detector: TriggerSearchDetector, model: zoo_file.ZooModel, field: str, value: object
) -> None:
    evidence = detector.measure(model).evidence
    assert evidence is not None
    spec = detector.input_spec
    table = {**evidence.to_json(), field: value}
    with pytest.raises((ValueError, KeyError, TypeError)):
        Evidence.from_json(table, spec.image_shape, spec.num_classes)


def test_a_clean_model_is_held_against_the_others_alone(detector: TriggerSearchDetector) -> None:
    k, forms, logs = detector.input_spec.num_classes, len(detector.forms), detector._num_logs
    random = np.random.default_rng(0)
    rows = random.uniform(0.5, 5, (4, logs + forms * k + DOTS))
    _, before = detector.settled(rows, np.array([False, False, False, True]))
    changed = rows.copy()
    changed[0] *= 1.1
    _, after = detector.settled(changed, np.array([False, False, False, True]))
    names = detector.statistic_names
    beyond = [i for i, n in enumerate(names) if "beyond" in n or "one place" in n]
    others = [i for i in range(len(names)) if i not in beyond]
    assert np.array_equal(before[1][others], after[1][others])
    assert not np.array_equal(before[1][beyond], after[1][beyond])
    # Its own change is not taken from it by a table that it stands in.
    own = np.log(changed[0, : k * k] + 0.05) - np.log(rows[0, : k * k] + 0.05)
    assert (before[0][beyond[0]] - after[0][beyond[0]]) <= own.max() + 1e-9


def test_statistics_do_not_depend_on_the_order_of_classes(
    detector: TriggerSearchDetector,
) -> None:
    k, forms = detector.input_spec.num_classes, len(detector.forms)
    order = np.random.default_rng(1).permutation(k)
    random = np.random.default_rng(2)
    row = random.uniform(0.1, 3, detector._num_logs + forms * k + DOTS)
    tables = random.standard_normal(detector._num_logs)
    pairs = [tuple(pair) for pair in detector._pairs.tolist()]
    assert len(pairs) == k * (k - 1)
    moved = [pairs.index((order[a], order[b])) for a, b in pairs]

    def turned(values: NDArray[np.float64]) -> NDArray[np.float64]:
        by_pair = detector._by_pair(values)[:, order][:, :, order]
        places = [each[moved].ravel() for each in detector._by_place(values)]
        return np.concatenate([by_pair.ravel(), *places])

    shares, dots = np.split(row[detector._num_logs :], [forms * k])
    shares = shares.reshape(forms, k)[:, order].ravel()
    other = np.concatenate([turned(row[: detector._num_logs]), shares, dots])
    assert detector._read_found(row, tables) == pytest.approx(
        detector._read_found(other, turned(tables))
    )


def test_one_place_stands_out_by_target_by_pair_or_by_rule() -> None:
    pairs = np.array([(a, b) for a in range(5) for b in range(5) if a != b])
    easy = np.random.default_rng(0).normal(0, 0.01, (20, 9))
    # Neither a pair nor a place that is easy as a whole stands out.
    easy[3] -= 2
    easy[:, 4] -= 1
    assert place_contrasts(pairs, easy) == pytest.approx([0, 0, 0], abs=0.1)
    to_one, one_pair, rule = easy.copy(), easy.copy(), easy.copy()
    to_one[pairs[:, 1] == 2, 8] -= 1
    one_pair[7, 8] -= 1
    rule[(pairs[:, 0] + 1) % 5 == pairs[:, 1], 8] -= 1
    assert place_contrasts(pairs, to_one) == pytest.approx([1, 1, 0.8], abs=0.1)
    assert place_contrasts(pairs, one_pair) == pytest.approx([1, 0.5, 0.2], abs=0.1)
    assert place_contrasts(pairs, rule) == pytest.approx([1, 0.5, 1], abs=0.1)


def test_given_pictures_take_the_place_of_the_images(
    detector: TriggerSearchDetector, model: zoo_file.ZooModel, digits: Any
) -> None:
    pictures = digits.test.images.numpy()[:80].astype(np.float32) / 255
    given = detector.with_pictures(pictures)
    measurement = given.measure(model)
    assert measurement.evidence is not None
    assert measurement.evidence.images_from == "given pictures"
    assert given.notes_of(measurement)[0].startswith("trigger search on given pictures")
    assert measurement != detector.measure(model)


def test_a_model_without_gradients_is_told(
    detector: TriggerSearchDetector, model: zoo_file.ZooModel
) -> None:
    class Blind:
        input_spec, outputs = model.input_spec, model.outputs

        def __call__(self, images: Any) -> Any:
            return model(images)

    with pytest.raises(UnsupportedModelError, match="trigger_search needs gradients"):
        detector.measure(Blind())


def test_a_file_with_other_tables_is_refused(detector: TriggerSearchDetector) -> None:
    broken = replace(detector, tables=detector._known_tables()[:2])
    arrays = {**broken.arrays(), **broken.calibration.arrays()}
    header = {
        "input_spec": detector.input_spec.to_json(),
        "calibration": detector.calibration.to_json(),
        "scope": {},
        "held_out": {},
        "options": detector.options(),
    }
    with pytest.raises(DetectorError, match="another shape"):
        TriggerSearchDetector.from_file(arrays, header)


def test_classes_in_another_order_find_the_same_trigger(
    detector: TriggerSearchDetector, model: zoo_file.ZooModel
) -> None:
    if not hasattr(OrderedModel, "gradients"):
        pytest.fail("an ordered model has no gradients")
    order = list(range(detector.input_spec.num_classes))
    same = detector.measure(OrderedModel(model, order))
    assert same.member_scores == pytest.approx(detector.measure(model).member_scores, abs=0.05)


def test_what_it_reached_in_a_zoo_is_drawn_from_what_the_fit_kept(
    detector: TriggerSearchDetector, small_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, picture = tmp_path / "search.litmus", tmp_path / "reached.svg"
    file.write_bytes(detector.to_bytes())
    read = [e for e in small_zoo.split("train") if e.id in known_to(detector)]
    row = detector.known_statistics(read[0])
    assert row == pytest.approx(detector.statistics(zoo_file.load(read[0].path)), abs=0.2)
    few = replace(small_zoo, entries=tuple(read))
    monkeypatch.setattr(Zoo, "open", lambda path: few)
    monkeypatch.setattr(TriggerSearchDetector, "_search", None)  # nothing is searched again
    main([str(small_zoo.path), str(file), "-o", str(picture)])
    drawn = picture.read_text()
    clean = sum(not entry.backdoored for entry in read)
    counts = f"clean (n = {clean})", f"backdoored (n = {len(read) - clean})"
    for word in ("large patch", "additive", *counts):
        assert word in drawn


def known_to(detector: TriggerSearchDetector) -> set[str]:
    assert detector.unseen is not None
    return {entry.id for entry in detector.unseen.entries}
