from __future__ import annotations

import json

import pytest

from litmus.models import InputSpec
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import parse_recipe
from litmus.zoo.spec import ModelSpec
from tests.conftest import tiny_recipe_table

TEN = InputSpec(channels=1, height=28, width=28, num_classes=10)


@pytest.fixture(scope="module")
def paper() -> list[ModelSpec]:
    """The paper's MNIST zoo: 900 twins, 90 pairs of classes, five triggers a split."""
    table = tiny_recipe_table(
        twins=900,
        triggers={"binary": 10, "train": 5, "test": 5},
        attack={"label_map": "source_specific"},
    )
    return expand(parse_recipe(table, "zoo.toml"), TEN)


def test_ids_and_seeds_never_change() -> None:
    """A change here orphans every zoo that was ever built; the spec is that of recipes/paper."""
    table = {
        "name": "mnist",
        "twins": 900,
        "dataset": {"name": "mnist", "train_images": 30000},
        "architecture": {"name": "vgg", "width": 16, "stem_stride": 2},
        "training": {"epochs": 1, "batch_size": 64, "optimizer": "adam"},
        "attack": {"name": "patch", "place": "corner"},
        "gates": {"clean_accuracy": 0.98, "attack_success": 0.9},
    }
    specs = expand(parse_recipe(table, "mnist.toml"), TEN, scale=0.01)
    assert [spec.id for spec in specs[:4]] == [
        "d9bfd1462c25e3ed",
        "24e49ac701b8b90b",
        "60cedccb8e6e30c8",
        "af5a38ddf5a8ded2",
    ]
    assert specs[0].seed == 3087544853355808011
    assert specs[0].next_attempt().id == "73da52b2a6d9c4a6"


def test_ids_and_seeds_are_unique_and_attempts_differ(paper: list[ModelSpec]) -> None:
    assert len(paper) == 1800
    every = [spec for first in paper[:100] for spec in (first, first.next_attempt())] + paper[100:]
    assert len({spec.id for spec in every}) == len(every)
    assert len({spec.seed for spec in every}) == len(every)


def test_a_spec_crosses_a_header(paper: list[ModelSpec]) -> None:
    spec = paper[3].next_attempt()
    again = ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert (again.id, again.seed, again.attempt) == (spec.id, spec.seed, 1)
    assert again.build_attack().trigger_id.startswith("binary-")
    assert again.build_architecture().skeleton(TEN)
    assert again.build_training().batch_size == 32
