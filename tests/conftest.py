"""Shared fixtures: tiny data as real objects, and a cache of the session's own."""

from __future__ import annotations

import contextlib
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from hypothesis import settings

from litmus.artifacts import encode_tensors, parse_tensors
from litmus.cli import main
from litmus.datasets import ImageDataset, Split, load_images
from litmus.detectors.patterns import ULPDetector
from litmus.errors import ZooError
from litmus.models import InputSpec
from litmus.zoo import Zoo, build_zoo
from litmus.zoo.recipe import parse_recipe

# No deadline: the machine may be busy. The same examples in every run.
settings.register_profile("litmus", deadline=None, derandomize=True)
settings.load_profile("litmus")

REPOSITORY = Path(__file__).resolve().parents[1]
# Read before `own_environment` takes it away from the tests.
_NAMED = os.environ.get("LITMUS_DATA")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache or data; torch runs one thread, as workers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITMUS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("LITMUS_DATA", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, CIFAR10 and GTSRB as Parquet files."""
    folder = Path(_NAMED) if _NAMED else REPOSITORY.parent / "shared" / "data"
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no data sets in {folder}; LITMUS_DATA names another folder")
    return folder


@pytest.fixture(scope="session")
def digits(own_environment: None) -> ImageDataset:
    """Scikit-learn's handwritten digits, 1x28x28."""
    return load_images("digits")


def children_running(module: str) -> list[psutil.Process]:
    """This process's children that run `python -m module`, those that just ended left out."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if module in child.cmdline():
                found.append(child)
    return found


def random_split(
    spec: InputSpec, *, per_class: int, seed: int = 0, low: int = 0, high: int = 256
) -> Split:
    """Random pixels in [low, high), labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    n = per_class * spec.num_classes
    images = torch.randint(low, high, (n, *spec.image_shape), generator=generator)
    return Split(images=images.to(torch.uint8), labels=torch.arange(n) % spec.num_classes)


@pytest.fixture(scope="session")
def tiny_dataset() -> ImageDataset:
    """Three classes of 3x12x12 noise: 20 images each to train on, 10 to test on."""
    spec = InputSpec(channels=3, height=12, width=12, num_classes=3)
    return ImageDataset(
        name="tiny",
        class_names=("a", "b", "c"),
        train=random_split(spec, per_class=20),
        test=random_split(spec, per_class=10, seed=1),
        sha256="0" * 64,
    )


@pytest.fixture
def recipe_table() -> Callable[..., dict[str, Any]]:
    """A function that returns the tables of a recipe on `digits` whose models train in 0.2 s.

    Keyword arguments replace or add keys: `training={"epochs": 2}`, `twins=8`.
    """
    return tiny_recipe_table


def tiny_recipe_table(**changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": "tiny",
        "twins": 3,
        "dataset": {"name": "digits"},
        "architecture": {"name": "vgg", "width": 2, "stem_stride": 2},
        "training": {"batch_size": 32},
        "attack": {"name": "patch", "label_map": "untargeted"},
        "triggers": {"binary": 4, "train": 2, "test": 2},
        "gates": {"clean_accuracy": 0.0, "attack_success": 0.0},
    }
    for key, value in changes.items():
        merge = isinstance(value, dict) and isinstance(table.get(key), dict)
        table[key] = {**table[key], **value} if merge else value
    return table


SMALL_RECIPE = """\
name = "small"
twins = 20
test_share = 0.4
[dataset]
name = "digits"
[architecture]
name = "vgg"
width = 6
stem_stride = 2
configuration = [1, 2, "M", 3, "M"]
[training]
epochs = 6
batch_size = 64
[attack]
name = "patch"
label_map = "source_specific"
[triggers]
binary = 8
train = 4
test = 4
[gates]
attack_success = 0.8
"""


@pytest.fixture(scope="session")
def small_zoo(own_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A real zoo on digits, 20 twins of a small VGG: 12 to fit on, 8 with other triggers."""
    folder = tmp_path_factory.mktemp("zoos") / "small"
    return build_zoo(parse_recipe(tomllib.loads(SMALL_RECIPE), "small"), folder, workers=2)


class Folders(NamedTuple):
    """Where recipes and zoos are, as `litmus reproduce` takes them."""

    recipes: Path
    zoos: Path


@pytest.fixture
def folders(small_zoo: Zoo, tmp_path: Path) -> Folders:
    """The small zoo as `small`, in a folder of this test's own, so that nothing is cached yet."""
    return linked_folders(small_zoo, tmp_path)


def linked_folders(zoo: Zoo, root: Path) -> Folders:
    """The small zoo's files under another root, by links."""
    found = Folders(root / "recipes", root / "zoos")
    found.recipes.mkdir()
    (found.recipes / "small.toml").write_text(SMALL_RECIPE)
    (found.zoos / "small").mkdir(parents=True)
    for file in filter(Path.is_file, zoo.path.iterdir()):
        (found.zoos / "small" / file.name).symlink_to(file)
    return found


def relabelled_zoo(zoo: Zoo, folder: Path, *, twins: int, **spec: Any) -> Path:
    """The zoo's first twins in another folder, with other things said in their specs."""
    folder.mkdir()
    (folder / "zoo.json").write_bytes((zoo.path / "zoo.json").read_bytes())
    for entry in zoo.entries:
        if entry.spec.twin < twins:
            arrays, header = parse_tensors(entry.path.read_bytes(), entry.path, ZooError)
            content = encode_tensors(arrays, {**header, "spec": {**header["spec"], **spec}})
            (folder / entry.path.name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def detector_with_references(small_zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `litmus fit` writes if told nothing else: with reference images."""
    path = tmp_path_factory.mktemp("detectors") / "references.litmus"
    command = ["fit", small_zoo.path, "-o", path, "--detector", "last_layer"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["litmus", *map(str, command)])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code
    return path


@pytest.fixture(scope="session")
def small_detector(small_zoo: Zoo) -> ULPDetector:
    """A ULP detector of five members with four patterns each, fitted on the small zoo."""
    return ULPDetector.fit(small_zoo, num_patterns=4, epochs=20)


@pytest.fixture(scope="session")
def small_detector_file(
    small_detector: ULPDetector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small detector's file."""
    path = tmp_path_factory.mktemp("detectors") / "small.litmus"
    path.write_bytes(small_detector.to_bytes())
    return path
