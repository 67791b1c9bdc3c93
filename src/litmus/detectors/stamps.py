"""Where generic triggers lead a model, put on images that all clean models agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.statistic import StatisticDetector
from litmus.errors import DetectorError, UsageError
from litmus.models import Images, InputSpec, Model, probabilities
from litmus.stamping import FAMILIES, Stamp, stamp_bank, stamped

if TYPE_CHECKING:
    from litmus.zoo import Zoo

__all__ = ["EVERY_FAMILY", "LEAST", "PLAIN", "StampSettings", "StampsDetector", "stamp_statistics"]

LEAST: Final = 1e-3
"""Of a probability, and of what is missing to 1, before the log-odds are taken."""
_BATCH: Final = 256
_KEPT_BYTES: Final = 64 * 2**20

PLAIN: Final = ("own class without a stamp", "least own class without a stamp")
EVERY_FAMILY: Final = (
    "surest target",
    "three surest targets",
    "targets of all stamps",
    "steadiest target",
    "second steadiest target",
    "median steady target",
    "second class as a target",
    "median class as a target",
    "least own class",
    "own class",
    "surest flip",
    "flips of all images",
    "steadiest flip of an image",
    "steadiest pair",
    "second steadiest pair",
    "pairs of all images",
)
"""What `stamp_statistics` reads of each family of stamps."""


@dataclass(frozen=True, kw_only=True)
class StampSettings:
    """How many stamps of each family, and on how many of the classes' images they are put.

    Images are those of `references.ReferenceSettings`, learned in `steps`.
    """

    uniform: int = 60
    binary: int = 80
    pixels: int = 70
    smooth: int = 25
    noise: int = 15
    checker: int = 10
    wave: int = 60
    classes: int = 5
    steps: int = 300

    def __post_init__(self) -> None:
        for name, low in {**dict.fromkeys(FAMILIES, 1), "classes": 2, "steps": 1}.items():
            if getattr(self, name) < low:
                raise UsageError(
                    f"{name} is impossible", expected=f">= {low}", got=getattr(self, name)
                )

    @property
    def counts(self) -> dict[str, int]:
        """The number of stamps of each family."""
        return {family: getattr(self, family) for family in FAMILIES}

    def classes_of(self, spec: InputSpec) -> NDArray[np.int64]:
        """Return the classes (s,) whose images are stamped, spread evenly."""
        last = spec.num_classes - 1
        spread = np.linspace(0, last, min(self.classes, spec.num_classes))
        return spread.round().astype(np.int64)


def stamp_statistics(
    plain: NDArray[np.float64], answers: Mapping[str, NDArray[np.float64]], own: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the numbers of `StampsDetector.statistic_names`, as log-odds.

    `plain` (s, k) are the probabilities that a model gives the images of the classes `own` (s,),
    `answers` (t, s, k) those with each family's stamps. A target is a class that images of other
    classes go to, a pair one of those with where it goes; steady is what holds in the mean over a
    family's stamps. None of the numbers depends on the order of the classes.
    """
    images, k = np.arange(len(own)), plain.shape[1]
    # All families at once, and then each one's share of the rows: most are far too small for
    # NumPy to be quick on.
    shown = np.concatenate(list(answers.values()))
    counts = np.array([len(family) for family in answers.values()])
    ends = np.cumsum(counts)
    starts = ends - counts

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        each = counts.reshape(-1, *[1] * (values.ndim - 1))
        means: NDArray[np.float64] = np.add.reduceat(values, starts) / each
        return means

    kept = shown[:, images, own].mean(axis=1)
    others = shown.copy()
    others[:, images, own] = 0
    # (t, k): the mean over the images of other classes
    targets = others.sum(axis=1) / (len(own) - np.bincount(own, minlength=k))
    surest = [np.sort(part) for part in np.split(targets.max(axis=1), ends[:-1])]
    steady = np.sort(mean(targets))
    reached = np.sort(np.maximum.reduceat(targets, starts))
    flips = others.max(axis=2)
    pairs = mean(others)
    ordered = np.sort(pairs.reshape(len(counts), -1))
    by_family = [
        [part[-1] for part in surest],
        [part[-3:].mean() for part in surest],
        [part.mean() for part in surest],
        steady[:, -1],
        steady[:, -2],
        _middle(steady),
        reached[:, -2],
        _middle(reached),
        np.minimum.reduceat(kept, starts),
        mean(kept),
        np.maximum.reduceat(flips.max(axis=1), starts),
        np.maximum.reduceat(flips, starts).mean(axis=1),
        mean(flips).max(axis=1),
        ordered[:, -1],
        ordered[:, -2],
        pairs.max(axis=2).mean(axis=1),
    ]
    own_class = plain[images, own]
    found = np.concatenate([[own_class.mean(), own_class.min()], np.transpose(by_family).ravel()])
    values = np.clip(found, LEAST, 1 - LEAST)
    odds: NDArray[np.float64] = np.log(values / (1 - values))
    return odds


def _middle(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each row (f, k) that is in order."""
    k = ordered.shape[1]
    middle: NDArray[np.float64] = (ordered[:, (k - 1) // 2] + ordered[:, k // 2]) / 2
    return middle


@dataclass(frozen=True, kw_only=True)
class StampsDetector(StatisticDetector):
    """Images that all clean models of a zoo agree on, one a class, with generic triggers on them.

    A backdoor opens to more than its own trigger: other patches near its place, other pixels,
    other waves do some of what it does. How far each family of stamps leads a model's answers
    away, to one class or to many, is evidence, and it depends neither on the classes' order nor
    on the network's kind. Single pixels on one image are the One-Pixel Signature's idea (Huang et
    al. 2020). `images` (s, c, h, w) are those of the classes `own` (s,).
    """

    name: ClassVar[str] = "stamps"
    statistic_names: ClassVar[tuple[str, ...]] = (
        *PLAIN,
        *(f"{what}, {family}" for family in FAMILIES for what in EVERY_FAMILY),
    )

    images: Images | None = None

    @classmethod
    def settings_type(cls) -> type[StampSettings]:
        """Return `StampSettings`."""
        return StampSettings

    @property
    def stamp_settings(self) -> StampSettings:
        """The settings; raises UsageError where a file has impossible ones."""
        return StampSettings(**self.resolved(StampSettings, self.settings))

    @property
    def own(self) -> NDArray[np.int64]:
        """The classes (s,) of the images."""
        return self.stamp_settings.classes_of(self.input_spec)

    def learned(self, zoo: Zoo, *, seed: int) -> Self:
        """Learn the images on the training split's clean models."""
        from litmus.fitting import ReferenceSettings, learn_references

        settings = self.stamp_settings
        clean = [entry for entry in zoo.split("train") if not entry.backdoored]
        images = learn_references(
            clean,
            zoo.load_dataset().background,
            ReferenceSettings(steps=settings.steps),
            classes=self.own,
            seed=seed,
        )
        return replace(self, images=images)

    @property
    def bank(self) -> tuple[Stamp, ...]:
        """The stamps (t,), by families."""
        return stamp_bank(self.input_spec.image_shape, self.stamp_settings.counts)

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return `stamp_statistics` of the model's answers."""
        assert self.images is not None
        batches = [self.images, *self._queries()]
        answers = [probabilities(model(batch), model.outputs) for batch in batches]
        shown = np.concatenate(answers[1:]).reshape(-1, *answers[0].shape)
        ends = np.cumsum(list(self.stamp_settings.counts.values()))[:-1]
        by_family = dict(zip(FAMILIES, np.split(shown, ends), strict=True))
        return stamp_statistics(answers[0], by_family, self.own)

    def _queries(self) -> Iterable[Images]:
        """The images with each stamp; for networks of usual size they are made once."""
        assert self.images is not None
        if len(self.bank) * self.images.nbytes <= _KEPT_BYTES:
            return self._kept
        return stamped(self.bank, self.images, most=_BATCH)

    @cached_property
    def _kept(self) -> tuple[Images, ...]:
        assert self.images is not None
        return tuple(stamped(self.bank, self.images, most=_BATCH))

    def _key(self) -> dict[str, Any]:
        assert self.images is not None
        seen = [self.images, *(array for stamp in self.bank for array in (stamp.keep, stamp.add))]
        digest = hashlib.sha256(b"".join(array.tobytes() for array in seen)).hexdigest()
        return {**super()._key(), "images and stamps": digest}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the members' arrays and the images, which are pictures of 8 bits."""
        assert self.images is not None
        return {**super().arrays(), "images": np.rint(self.images * 255).astype(np.uint8)}

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read a detector; raises DetectorError where arrays are missing or do not fit."""
        detector = super().from_file(arrays, header)
        wanted = (len(detector.own), *detector.input_spec.image_shape)
        images = arrays.get("images")
        if images is None or images.shape != wanted or images.dtype != np.uint8:
            raise DetectorError(
                "images of another shape than the header says",
                expected=f"uint8 {wanted}",
                got="none" if images is None else f"{images.dtype} {images.shape}",
            )
        return replace(detector, images=images.astype(np.float32) / np.float32(255))
