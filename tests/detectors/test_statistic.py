from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litmus.detectors import load_detector
from litmus.detectors.last_layer import LastLayerDetector
from litmus.detectors.patterns import ULPDetector
from litmus.errors import DetectorError, ModelError, UsageError, ZooError
from litmus.evaluation import evaluate
from litmus.fitting import (
    FOLDS,
    PatternSettings,
    assign_folds,
    draw_models,
    fit_heads,
    fit_members,
)
from litmus.formats import zoo_file
from litmus.models import InputSpec
from litmus.zoo import Zoo


@pytest.fixture(scope="module")
def fitted(small_zoo: Zoo) -> LastLayerDetector:
    return LastLayerDetector.fit(small_zoo, seed=4)


def test_fitting_calibrates_on_models_that_members_had_not_seen(
    fitted: LastLayerDetector, small_zoo: Zoo
) -> None:
    training = small_zoo.split("train")
    clean = [entry for entry in training if not entry.backdoored]
    assert len(fitted.heads) == FOLDS
    assert len(fitted.calibration.scores) == len(clean)
    own = np.array([fitted.measure(zoo_file.load(e.path)).member_scores for e in clean])
    for score, member in zip(fitted.calibration.scores, fitted.calibration.members, strict=True):
        assert np.isclose(own[:, member], score).any()
    held_out, seen = fitted.held_out, fitted.scope["num_training"]
    assert (held_out["n_clean"], held_out["n_backdoored"]) == (len(clean), len(clean))
    assert held_out["by_attack"] == {
        "patch, source_specific": {"auc": held_out["auc"], "n": len(clean)}
    }
    assert sum(seen) == (FOLDS - 1) * len(training)
    assert fitted.scope["seed"] == 4
    assert fitted.scope["settings"] == {"models": 0, "weight_decay": 0.1}
    test_triggers = {entry.trigger_id for entry in small_zoo.split("test")}
    assert not test_triggers & set(fitted.scope["triggers"])


def test_its_folds_are_those_of_a_pattern_detector(
    fitted: LastLayerDetector, small_zoo: Zoo
) -> None:
    entries = small_zoo.split("train")
    settings = PatternSettings(num_patterns=1, epochs=1, learn_patterns=False)
    members = fit_members(entries, settings, seed=4)
    ulp = ULPDetector.fit(small_zoo, num_patterns=1, epochs=1, seed=4)
    np.testing.assert_array_equal(fitted.calibration.members, ulp.calibration.members)
    position = 0
    for index, member in enumerate(members):
        clean = [i for i in member.held_out if not entries[i].backdoored]
        for i in clean:
            measured = fitted.measure(zoo_file.load(entries[i].path)).member_scores[index]
            assert measured == pytest.approx(fitted.calibration.scores[position])
            position += 1
    assert position == len(fitted.calibration.scores)


def test_a_file_gives_the_same_measurement(
    fitted: LastLayerDetector, small_zoo: Zoo, tmp_path: Path
) -> None:
    path = tmp_path / "layer.litmus"
    path.write_bytes(fitted.to_bytes())
    loaded = load_detector(path)
    assert isinstance(loaded, LastLayerDetector)
    for entry in small_zoo.entries[:4]:
        model = zoo_file.load(entry.path)
        assert loaded.measure(model) == fitted.measure(model)
    assert loaded.to_bytes() == fitted.to_bytes()


def test_the_head_learns_what_tells_the_kinds_apart() -> None:
    random = np.random.default_rng(0)
    backdoored = np.arange(200) % 2 == 1
    rows = random.normal(size=(200, 3))
    rows[:, 1] += 3 * backdoored
    rows[:, 2] = 5.0
    folds = np.arange(200) // 2 % FOLDS
    heads = fit_heads(rows, backdoored, folds, members=2, weight_decay=0.01)
    assert [len(head.held_out) for head in heads] == [40, 40]
    for index, head in enumerate(heads):
        assert (folds[head.held_out] == index).all()
        assert head.weight[1] > 5 * abs(head.weight[0])
        # What is the same for all models tells nothing.
        assert head.weight[2] == pytest.approx(0)
        odds = ((rows - head.mean) / head.std)[head.held_out] @ head.weight + head.bias
        assert ((odds > 0) == backdoored[head.held_out]).mean() > 0.85
    (strict,) = fit_heads(rows, backdoored, folds, members=1, weight_decay=100.0)
    assert abs(strict.weight[1]) < 0.02
    with pytest.raises(ZooError, match="of one kind"):
        fit_heads(rows, np.zeros(200, bool), folds, members=1, weight_decay=1.0)


def test_a_monotone_head_takes_nothing_as_evidence_of_the_contrary() -> None:
    random = np.random.default_rng(2)
    backdoored = random.random(80) < 0.5
    rows = random.normal(size=(80, 4)) + np.outer(backdoored, [1.0, -2.0, 0.5, 0.0])
    folds = np.arange(80) % FOLDS
    (free,) = fit_heads(rows, backdoored, folds, members=1, weight_decay=0.2)
    (head,) = fit_heads(rows, backdoored, folds, members=1, weight_decay=0.2, monotone=True)
    assert free.weight[1] < 0
    assert head.weight[1] == 0
    assert (head.weight >= 0).all()
    # The optimum under that bound: no gradient where a weight is free, none downhill at 0.
    seen = folds != 0
    z = (rows[seen] - head.mean) / head.std
    excess = 1 / (1 + np.exp(-(z @ head.weight + head.bias))) - backdoored[seen]
    slope = (excess @ z) / len(z) + 0.2 * head.weight
    np.testing.assert_allclose(slope[head.weight > 0], 0, atol=1e-6)
    assert (slope[head.weight == 0] >= -1e-6).all()
    assert excess.mean() == pytest.approx(0, abs=1e-6)
    # Where all of it is evidence, both are one.
    both = rows[:, [0, 2]]
    (free,) = fit_heads(both, backdoored, folds, members=1, weight_decay=0.2)
    (head,) = fit_heads(both, backdoored, folds, members=1, weight_decay=0.2, monotone=True)
    np.testing.assert_allclose(head.weight, free.weight, rtol=1e-4)


def test_models_are_drawn_from_all_folds_and_more_are_more(small_zoo: Zoo) -> None:
    entries = small_zoo.split("train")
    folds, _ = assign_folds(entries, 3)
    drawn = {n: draw_models(entries, folds, n, 3) for n in (0, 1, 5, 10, 99)}
    assert drawn[0].tolist() == drawn[99].tolist() == list(range(len(entries)))
    for fewer, more in ((1, 5), (5, 10), (10, 99)):
        assert set(drawn[fewer]) < set(drawn[more])
    kinds = np.array([entry.backdoored for entry in entries])
    for n in (1, 5, 10):
        assert (drawn[n][:-1] < drawn[n][1:]).all()
        assert (kinds[drawn[n]].sum(), (~kinds[drawn[n]]).sum()) == (n, n)
    for kind in (True, False):
        assert sorted(folds[[i for i in drawn[5] if kinds[i] == kind]]) == [0, 1, 2, 3, 4]
    assert set(draw_models(entries, folds, 5, 4)) != set(drawn[5])


def test_a_detector_reads_as_many_models_as_it_is_told_to(small_zoo: Zoo) -> None:
    few = LastLayerDetector.fit(small_zoo, seed=4, models=8)
    assert (few.held_out["n_clean"], few.held_out["n_backdoored"]) == (8, 8)
    assert few.scope["num_models"] == 16
    # In the same folds as if it had read all.
    whole = LastLayerDetector.fit(small_zoo, seed=4)
    assert few.unseen is not None
    assert whole.unseen is not None
    ids = [entry.id for entry in few.unseen.entries]
    np.testing.assert_array_equal(few.unseen.members, whole.unseen.of_models(ids).members)


def test_the_head_minimises_what_it_says() -> None:
    random = np.random.default_rng(1)
    backdoored = random.random(60) < 0.5
    rows = random.normal(size=(60, 4)) + backdoored[:, None]
    folds = np.arange(60) % FOLDS
    (head,) = fit_heads(rows, backdoored, folds, members=1, weight_decay=0.2)
    seen = folds != 0
    z = (rows[seen] - rows[seen].mean(axis=0)) / rows[seen].std(axis=0)
    excess = 1 / (1 + np.exp(-(z @ head.weight + head.bias))) - backdoored[seen]
    np.testing.assert_allclose((excess @ z) / len(z) + 0.2 * head.weight, 0, atol=1e-6)
    assert excess.mean() == pytest.approx(0, abs=1e-6)


def test_progress_settings_and_a_seed(small_zoo: Zoo) -> None:
    reports: list[tuple[int, int]] = []
    LastLayerDetector.fit(
        small_zoo, members=1, on_progress=lambda done, total: reports.append((done, total))
    )
    total = len(small_zoo.split("train"))
    assert reports == [(done, total) for done in range(1, total + 1)]
    defaults = LastLayerDetector.defaults()
    assert (defaults["members"], defaults["weight_decay"]) == (FOLDS, 0.1)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"members": 6}, "--members"),
        ({"weight_decay": 0.0}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"steps": 3}, r"unknown setting .*none, got steps"),
    ],
)
def test_impossible_settings_are_named(
    small_zoo: Zoo, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UsageError, match=fault):
        LastLayerDetector.fit(small_zoo, **settings)


def test_too_few_twins_are_an_error(small_zoo: Zoo) -> None:
    with pytest.raises(ZooError, match="too few models"):
        LastLayerDetector.fit(small_zoo.first(0.4))


def test_it_stands_beside_others_in_an_evaluation(
    fitted: LastLayerDetector, small_detector: ULPDetector, small_zoo: Zoo
) -> None:
    evaluation = evaluate(small_zoo, {"ulp": small_detector, "layer": fitted}, fpr=0.15)
    row = evaluation.headline("layer")
    assert row.num_patterns is None
    assert 0 <= row.auc <= 1


def test_a_model_of_another_shape_is_refused(fitted: LastLayerDetector) -> None:
    class Other:
        input_spec = InputSpec(channels=1, height=28, width=28, num_classes=3)
        outputs = "logits"

    with pytest.raises(ModelError, match="another shape"):
        fitted.measure(Other())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"weight": None}, "'weight' is missing"),
        ({"weight": np.zeros((5, 3))}, "another shape"),
        ({"bias": np.zeros((5, 1))}, "another shape"),
        ({"bias": np.zeros(4)}, "another shape"),
    ],
)
def test_damaged_heads_are_refused(
    fitted: LastLayerDetector, change: dict[str, Any], fault: str
) -> None:
    header = {
        "input_spec": fitted.input_spec.to_json(),
        "calibration": fitted.calibration.to_json(),
        "scope": {},
        "held_out": {},
        "options": fitted.options(),
    }
    arrays = {**fitted.arrays(), **fitted.calibration.arrays(), **change}
    present = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(DetectorError, match=fault):
        LastLayerDetector.from_file(present, header)
    with pytest.raises(DetectorError, match="is missing"):
        LastLayerDetector.from_file(fitted.arrays() | present, {**header, "options": {}})
