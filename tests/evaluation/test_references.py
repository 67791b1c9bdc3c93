from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from litmus.errors import ModelError, UsageError
from litmus.evaluation import ReferenceEvaluation, evaluate_references
from litmus.evaluation.references import Disguise, RecognisedModel
from litmus.formats import zoo_file
from litmus.formats.preprocessing import Preprocessing
from litmus.models import InputSpec
from litmus.zoo import Zoo
from tests.formats.onnx_models import classifier, save

DIGITS = InputSpec(channels=1, height=28, width=28, num_classes=10)


def test_a_disguised_model_is_the_same_where_it_is_fed_as_it_wants(small_zoo: Zoo) -> None:
    model = zoo_file.load(small_zoo.entries[0].path)
    order = np.random.default_rng(0).permutation(10)
    wants = Preprocessing(scale=255.0, mean=30.0, std=80.0)
    images = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
    disguise = Disguise(model, wants, order)
    fed_right = disguise.with_preprocessing(wants)(images)
    np.testing.assert_allclose(fed_right, model(images)[:, order], atol=1e-4)
    assert np.abs(disguise(images) - fed_right).max() > 0.1


def test_models_of_another_shape_are_no_others(small_zoo: Zoo, tmp_path: Path) -> None:
    # Fewer classes than references: nothing can be assigned.
    few = InputSpec(channels=1, height=28, width=28, num_classes=4)
    path = save(classifier(spec=few), tmp_path / "few.onnx")
    with pytest.raises(ModelError, match=r"few.onnx: .*another shape.*10 classes.*4 classes"):
        evaluate_references(small_zoo, others=[path])


def test_two_others_of_one_name_are_told_apart_by_their_owner(
    small_zoo: Zoo, tmp_path: Path
) -> None:
    files = [tmp_path / folder / "m.onnx" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        save(classifier(spec=DIGITS), file)
    with pytest.raises(UsageError, match="two models have the same name"):
        evaluate_references(small_zoo, others=files)


def test_shares_are_of_the_models_chosen(small_zoo: Zoo) -> None:
    clean, backdoored = (
        next(e for e in small_zoo.entries if e.backdoored is bad) for bad in (False, True)
    )
    cases = [
        (clean, "a", "a", False, True),
        (clean, "a", "b", True, True),  # all but the same
        (backdoored, "b", None, True, False),
        (backdoored, "c", "a", False, False),
    ]
    result = ReferenceEvaluation(
        dataset="digits",
        models=tuple(
            RecognisedModel(
                entry=entry, group="g", wants=wants, found=found, reordered=re, order_found=ok
            )
            for entry, wants, found, re, ok in cases
        ),
        alike={"a": frozenset("ab"), "b": frozenset("ab"), "c": frozenset("c")},
        floors={},
        others={},
    )
    assert result.share("found") == 0.5
    assert result.share("exactly") == 0.25
    assert result.share("found", wants="a") == 1
    assert result.share("refused", backdoored=True) == 0.5
    assert result.share("refused", backdoored=False) == 0
    assert result.share("order_found", reordered=True) == 1  # the refused one does not count
    assert result.share("order_found", reordered=False) == 0.5
    assert result.share("found", architecture="none") is None
