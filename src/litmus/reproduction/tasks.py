"""The expensive units of work: a fit, a measurement. Each is a value, and its key names its result.

A task crosses to a worker process, so it holds nothing but plain values and zoo entries.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import litmus
from litmus.artifacts import canonical_json, parse_tensors
from litmus.attacks import Trigger
from litmus.datasets import ImageDataset, load_images
from litmus.detectors import DETECTORS
from litmus.detectors.inverting import InversionDetector
from litmus.detectors.patterns import PatternDetector
from litmus.errors import DetectorError
from litmus.formats import zoo_file
from litmus.models import Images, InputSpec
from litmus.schema import from_table
from litmus.seeds import torch_generator
from litmus.zoo import Zoo, ZooEntry

if TYPE_CHECKING:
    from litmus.detectors import Detector

__all__ = [
    "FitTask",
    "ImageSource",
    "MeasureTask",
    "Task",
    "Work",
    "collage",
    "digest",
    "fitted_detector",
]

_TRAINING_SHARE = 0.75
"""Of the models that a fit gets, those that one epoch goes through: 7/10 to train, the others
forward only."""
_CHUNK = 512
"""Images in one pass of an inversion, about."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a task is: passes forward and backward through a network, and images in them."""

    passes: float
    images: float


class Task(Protocol):
    """A unit of work whose result is a function of its key."""

    @property
    def zoo(self) -> str:
        """The name of the recipe whose networks it works on."""

    @property
    def folder(self) -> Path:
        """The zoo that its result is kept in."""

    @property
    def label(self) -> str:
        """A few words for a progress bar."""

    def key(self) -> dict[str, Any]:
        """Return all that the result depends on, no paths among it."""

    def work(self) -> Work:
        """Return how much work it is."""

    def compute(self) -> dict[str, Any]:
        """Return the result as plain JSON, with its `cpu_seconds`."""


def digest(task: Task) -> str:
    """Return 32 hexadecimal digits that stand for the task's key."""
    return hashlib.sha256(canonical_json(task.key()).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where a worker finds a data set, and the digest of its pixels."""

    name: str
    options: tuple[tuple[str, int], ...]
    data: Path | None
    sha256: str

    def load(self) -> ImageDataset:
        """Return the images; the last ones stay in memory."""
        return _load(self)


@lru_cache(maxsize=1)
def _load(source: ImageSource) -> ImageDataset:
    return load_images(source.name, data=source.data, **dict(source.options))


@dataclass(frozen=True, kw_only=True)
class FitTask:
    """Fit one member on `training` and score `test` with it.

    `settings` are those of `litmus.fitting.PatternSettings` in full. With `triggers`, tables of
    `litmus.attacks.Trigger`, the patterns are collages of these and stay as they are.
    """

    zoo: str
    detector: str
    settings: Mapping[str, Any]
    seed: int
    training: tuple[ZooEntry, ...]
    test: tuple[ZooEntry, ...]
    triggers: tuple[Mapping[str, Any], ...] = ()

    @property
    def folder(self) -> Path:
        """The zoo of the backdoored models."""
        return next(e.path.parent for e in self.training if e.backdoored)

    @property
    def label(self) -> str:
        """Detector, M and seed."""
        return f"{self.zoo}: {self.detector}, M = {self.settings['num_patterns']}"

    def key(self) -> dict[str, Any]:
        """Twins are in the key, since folds are made of them."""
        return {
            "task": "fit",
            "litmus_version": litmus.__version__,
            "detector": self.detector,
            "settings": dict(self.settings),
            "seed": self.seed,
            "training": [[entry.id, entry.spec.twin] for entry in self.training],
            "test": [entry.id for entry in self.test],
            "triggers": [dict(trigger) for trigger in self.triggers],
        }

    def work(self) -> Work:
        """Fixed patterns see each model once."""
        epochs = self.settings["epochs"] if self.settings["learn_patterns"] else 1
        passes = len(self.training) * _TRAINING_SHARE * epochs
        return Work(passes=passes, images=passes * self.settings["num_patterns"])

    def compute(self) -> dict[str, Any]:
        """Return the scores of `test`, how the fit went, and the detector's file in base64."""
        import litmus.fitting  # noqa: F401 - importing it is not the fit's time

        start = time.process_time()
        fitted = self._fit()
        scores = [fitted.score(zoo_file.load(entry.path)) for entry in self.test]
        return {
            "scores": scores,
            "num_training": fitted.scope["num_training"][0],
            "validation_auc": fitted.scope["validation_auc"][0],
            "best_epoch": fitted.scope["best_epoch"][0],
            "cpu_seconds": time.process_time() - start,
            "detector": base64.b64encode(fitted.to_bytes()).decode(),
        }

    def _fit(self) -> PatternDetector:
        detector = DETECTORS[self.detector]
        assert issubclass(detector, PatternDetector)
        zoo = Zoo(path=self.folder, recipe={"name": self.zoo}, entries=self.training)
        settings = {k: v for k, v in self.settings.items() if k != "learn_patterns"}
        initial: Images | None = None
        if self.triggers:
            count = self.settings["num_patterns"]
            initial = collage(self.triggers, zoo.input_spec, count=count, seed=self.seed)
        return detector.fit(zoo, members=1, seed=self.seed, initial=initial, **settings)


def fitted_detector(result: Mapping[str, Any]) -> PatternDetector:
    """Return the detector that a fit's result holds."""
    arrays, header = parse_tensors(
        base64.b64decode(result["detector"]), "a cached fit", DetectorError
    )
    detector = DETECTORS[header["detector"]].from_file(arrays, header)
    assert isinstance(detector, PatternDetector)
    return detector


def collage(
    triggers: Sequence[Mapping[str, Any]], input_spec: InputSpec, *, count: int, seed: int
) -> Images:
    """Return `count` black images (count, c, h, w), each with all triggers at random places."""
    import torch

    generator = torch_generator(seed, "collage")
    images = torch.zeros(count, *input_spec.image_shape)
    for image in images:
        for table in triggers:
            trigger = from_table(Trigger, table, "trigger")
            rows, columns = input_spec.height - trigger.size, input_spec.width - trigger.size
            row = int(torch.randint(0, rows + 1, (), generator=generator))
            column = int(torch.randint(0, columns + 1, (), generator=generator))
            pixels, mask = trigger.pixels(input_spec.channels) / 255, trigger.mask()
            square = image[:, row : row + trigger.size, column : column + trigger.size]
            square[:, mask] = pixels[:, mask]
    pasted: NDArray[np.float32] = images.numpy()
    return pasted


@dataclass(frozen=True, kw_only=True)
class MeasureTask:
    """Measure one model with a detector that inverts triggers; `settings` are in full."""

    zoo: str
    detector: str
    settings: Mapping[str, Any]
    entry: ZooEntry
    images: ImageSource

    @property
    def folder(self) -> Path:
        """The model's own zoo."""
        return self.entry.path.parent

    @property
    def label(self) -> str:
        """Detector and model."""
        return f"{self.zoo}: {self.detector}"

    def key(self) -> dict[str, Any]:
        """Of the images, the digest of the data set's pixels."""
        return {
            "task": "measure",
            "litmus_version": litmus.__version__,
            "detector": self.detector,
            "settings": dict(self.settings),
            "model": self.entry.id,
            "images": self.images.sha256,
        }

    def work(self) -> Work:
        """Return the passes that an inversion's settings ask for."""
        return inversion_work(self.detector, self.settings, self.entry.spec.input_spec.num_classes)

    def compute(self) -> dict[str, Any]:
        """Return the model's score."""
        detector = self.build()
        model = zoo_file.load(self.entry.path)
        start = time.process_time()
        score = detector.score(model)
        return {"score": score, "cpu_seconds": time.process_time() - start}

    def build(self) -> Detector:
        """Return the detector with its images."""
        detector = DETECTORS[self.detector]
        assert issubclass(detector, InversionDetector)
        ready = detector.uncalibrated(self.entry.spec.input_spec, **self.settings)
        return ready.with_images(self.images.load().test)


def inversion_work(detector: str, settings: Mapping[str, Any], num_classes: int) -> Work:
    """Return what one model costs by settings of `attack_based` or `neural_cleanse`."""
    from litmus.inversion import PatchSettings

    if detector == "attack_based":
        steps = PatchSettings(**settings).pair_steps(num_classes * (num_classes - 1))
    else:
        steps = num_classes * settings["steps"]
    images = steps * settings["batch_images"]
    return Work(passes=max(images / _CHUNK, settings["steps"]), images=images)
