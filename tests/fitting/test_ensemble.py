from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from litmus.errors import UsageError, ZooError
from litmus.fitting import FOLDS, assign_folds, seen_models, stack
from litmus.zoo import Zoo, ZooEntry


def of_family(entry: ZooEntry, family: str) -> ZooEntry:
    return replace(entry, spec=replace(entry.spec, architecture={"name": family}))


@pytest.fixture(scope="module")
def families(small_zoo: Zoo) -> list[ZooEntry]:
    """The training models as if they were of six families, the first twice as frequent."""
    names = ["a", "b", "c", "d", "e", "f", "a"]
    return [of_family(e, names[e.spec.twin % 7]) for e in small_zoo.split("train")]


def test_folds_of_families_share_none(families: list[ZooEntry]) -> None:
    folds, validates = assign_folds(families, 0, by="architecture")
    assert set(folds.tolist()) == set(range(FOLDS))
    of: dict[str, set[int]] = {}
    for entry, fold in zip(families, folds, strict=True):
        of.setdefault(entry.architecture, set()).add(int(fold))
    assert all(len(where) == 1 for where in of.values())
    assert 0 < validates.sum() < len(families)


def test_folds_of_twins_are_alike_and_keep_twins_together(families: list[ZooEntry]) -> None:
    folds, _ = assign_folds(families, 0)
    by_twin: dict[int, set[int]] = {}
    for entry, fold in zip(families, folds, strict=True):
        by_twin.setdefault(entry.spec.twin, set()).add(int(fold))
    assert all(len(where) == 1 for where in by_twin.values())
    assert np.ptp(np.bincount(folds)) <= 2


def test_there_must_be_a_family_for_each_fold(small_zoo: Zoo, families: list[ZooEntry]) -> None:
    with pytest.raises(ZooError, match="at least 5, one a fold"):
        assign_folds(small_zoo.split("train"), 0, by="architecture")
    with pytest.raises(UsageError, match="twin or architecture"):
        assign_folds(families, 0, by="colour")


def test_stacking_weighs_what_tells_and_not_what_does_not() -> None:
    random = np.random.default_rng(0)
    backdoored = np.arange(200) % 2 == 1
    scores = random.normal(size=(200, 2)) * [1.0, 50.0]
    scores[:, 0] += 3 * backdoored
    weights, bias = stack(scores, backdoored)
    assert weights[0] > 10 * abs(weights[1] * 50)  # chance leaves a little
    right = (scores @ weights + bias > 0) == backdoored
    assert right.mean() > 0.9


@pytest.mark.parametrize("by", ["twin", "architecture"])
def test_what_a_smaller_share_holds_a_larger_one_does_too(
    families: list[ZooEntry], by: str
) -> None:
    assigned, validates = assign_folds(families, 0, by=by)
    backdoored = np.array([entry.backdoored for entry in families])
    permitted = assigned != 2
    shares = (0.01, 0.25, 0.5, 0.75, 1.0)
    masks = [seen_models(families, permitted, validates, 0, share) for share in shares]
    for smaller, larger in pairwise(masks):
        assert not (smaller & ~larger).any()
    np.testing.assert_array_equal(masks[-1], permitted)
    sizes = [int(mask.sum()) for mask in masks]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < sizes[4]
    for mask in masks:
        for part in (mask & validates, mask & ~validates):
            assert set(backdoored[part].tolist()) == {True, False}
