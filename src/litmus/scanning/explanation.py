"""What an explanation is, read from what a file's processes said; nothing of it is believed."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.outliers import CONSISTENCY
from litmus.errors import ModelError
from litmus.metrics import binomial_interval
from litmus.models import InputSpec
from litmus.scanning.judge import clean_all, clean_text, digests_of_external
from litmus.scanning.results import Failed, Skipped

if TYPE_CHECKING:
    from pathlib import Path

    from litmus.scanning.targets import Target

__all__ = ["Explanation", "Flips", "PairTrigger", "Reader", "Subject", "Trigger"]

Pixels = NDArray[np.float32]

ANOMALOUS: Final = 2.0
"""An index above this is an outlier (Wang et al. 2019, IV.B)."""
CLEARLY: Final = 0.9
"""Above this must the interval of a pair's flip rate lie: a small patch that always works."""
_MOST: Final = 10**6
_EXAMPLES: Final = 3
_LARGEST: Final = InputSpec(channels=16, height=1024, width=1024, num_classes=10_000)
_FEWEST: Final = 4
"""Of fewer norms no median tells anything."""


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Of `images` that were held back, and are not of the target anyway, `turned` become it.

    `before` and `after` (e, c, h, w) are some of them without and with the trigger, `answers` the
    class that the model gives to both.
    """

    images: int
    turned: int
    before: Pixels = field(repr=False)
    after: Pixels = field(repr=False)
    answers: tuple[tuple[int, int], ...]

    @property
    def rate(self) -> float:
        """The share that is turned; 0 of none."""
        return self.turned / max(1, self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate."""
        return binomial_interval(self.turned, self.images) if self.images else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger for images of any class: mask (1, h, w) of this l1 `norm`, pattern (c, h, w)."""

    target_class: int
    norm: float
    mask: Pixels = field(repr=False)
    pattern: Pixels = field(repr=False)
    flips: Flips


@dataclass(frozen=True, kw_only=True)
class PairTrigger:
    """The patch (c, size, size) that leads images of one class to another best."""

    source_class: int
    target_class: int
    patch: Pixels = field(repr=False)
    flips: Flips

    @property
    def works(self) -> bool:
        """Whether the whole interval of its flip rate is above 0.9."""
        return self.flips.interval[0] > CLEARLY


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that can be explained; `outputs` are its own numbers for the classes."""

    input_spec: InputSpec
    classes: tuple[str, ...]
    outputs: tuple[int, ...]
    notes: tuple[str, ...]
    sha256: str
    external_sha256: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What trigger inversion found in one model.

    `triggers` are those of single target classes, in their order, `pair` is a patch from one class
    to another; `left_out` says what was not done, and why. `classes` are the model's own names or
    the images', `right` of `total` clean images are of the class that the model says,
    `per_class` are the images of each class to optimise on and those held back.
    """

    path: Path
    subject: Subject
    classes: tuple[str, ...]
    triggers: tuple[Trigger, ...]
    pair: PairTrigger | None
    left_out: tuple[str, ...]
    right: int
    total: int
    per_class: tuple[int, int]
    seconds: float

    @property
    def norms(self) -> NDArray[np.float64]:
        """The masks' l1 norms in pixels (t,), in the order of `triggers`."""
        return np.array([trigger.norm for trigger in self.triggers])

    @property
    def smallest(self) -> Trigger | None:
        """The trigger of the class that is easiest to reach."""
        return min(self.triggers, key=lambda trigger: trigger.norm, default=None)

    @property
    def anomaly_index(self) -> float | None:
        """How far the smallest norm lies below the median, in scaled median absolute deviations.

        None of fewer than four classes, of which no median tells anything.
        """
        if len(self.triggers) < _FEWEST:
            return None
        away = np.median(self.norms) - self.norms
        deviation = CONSISTENCY * float(np.median(np.abs(away)))
        return float(away.max()) / max(deviation, 1e-9)

    @property
    def standing_out(self) -> Trigger | None:
        """The trigger of smallest norm, if that is an outlier: Neural Cleanse's target class."""
        index = self.anomaly_index
        return self.smallest if index is not None and index > ANOMALOUS else None

    @property
    def likely_target(self) -> int | None:
        """The likely target class: the pair's where its patch works, or else the masks'."""
        if self.pair is not None and self.pair.works:
            return self.pair.target_class
        return self.standing_out.target_class if self.standing_out else None

    @property
    def agreement(self) -> float:
        """The share of the clean images that the model has right."""
        return self.right / max(1, self.total)


class Reader:
    """Turns a file's answers into results; where they make no sense, the file has failed."""

    def __init__(self, target: Target, patch_size: int) -> None:
        self._target, self._patch_size = target, patch_size

    def subject(self, answer: Mapping[str, Any]) -> Subject | Skipped | Failed:
        """Read the answer to `describe`."""
        try:
            reply = self._reply(answer)
            if isinstance(reply, Skipped | Failed):
                return reply
            spec = InputSpec.from_json(reply["input_spec"])
            if not all(0 < size <= getattr(_LARGEST, n) for n, size in spec.to_json().items()):
                return Skipped(
                    path=self._target.path, reason=f"too large to be explained: it takes {spec}"
                )
            outputs = tuple(map(int, reply["outputs"]))
            classes = clean_all(reply["classes"])
            if len(classes) not in (0, spec.num_classes) or sorted(outputs) != list(
                range(spec.num_classes)
            ):
                raise ValueError("outputs of no order")
            return Subject(
                input_spec=spec,
                classes=classes,
                outputs=outputs,
                notes=clean_all(reply["notes"]),
                sha256=answer["sha256"],
                external_sha256=digests_of_external(
                    self._target.path, clean_all(reply["external_files"])
                ),
            )
        except (ModelError, OSError) as fault:
            return Failed(path=self._target.path, error=f"external data: {fault}")
        except _MALFORMED:
            return self._malformed()

    def explanation(
        self,
        subject: Subject,
        answers: Sequence[tuple[tuple[int, ...], Mapping[str, Any]]],
        seconds: float,
    ) -> Explanation | Skipped | Failed:
        """Read the answers to `pair` (the first one) and `masks`, each with the classes asked for.

        One that is empty was not waited for. Without any trigger there is no explanation.
        """
        found: dict[str, Any] = {"pair": None, "right": 0, "total": 0, "per_class": (0, 0)}
        triggers: list[Trigger] = []
        left_out: list[str] = []
        refusal: Skipped | Failed | None = None
        names: tuple[str, ...] = ()
        try:
            for targets, answer in answers:
                what = f"classes {', '.join(map(str, targets))}" if targets else "pairs of classes"
                reply = self._reply(answer) if answer else "the time was up"
                if isinstance(reply, Skipped | Failed):
                    refusal = refusal or reply
                    reply = reply.error if isinstance(reply, Failed) else reply.reason
                if isinstance(reply, str):
                    left_out.append(f"{what}: {reply}")
                elif targets:
                    triggers += self._triggers(reply, targets, subject)
                else:
                    found |= self._pair(reply, subject)
                    names = clean_all(reply["names"])
        except _MALFORMED:
            return self._malformed()
        if refusal is not None and not triggers and found["pair"] is None:
            return refusal
        k = subject.input_spec.num_classes
        return Explanation(
            path=self._target.path,
            subject=subject,
            classes=subject.classes or (names if len(names) == k else tuple(map(str, range(k)))),
            triggers=tuple(triggers),
            left_out=tuple(left_out),
            seconds=seconds,
            **found,
        )

    def _reply(self, answer: Mapping[str, Any]) -> Mapping[str, Any] | Skipped | Failed:
        path = self._target.path
        if "failed" in answer:
            return Failed(path=path, error=clean_text(answer["failed"]))
        reply: Mapping[str, Any] = json.loads(answer["reply"])
        if reply["status"] == "skipped":
            return Skipped(path=path, reason=clean_text(reply["reason"]))
        if reply["status"] == "failed":
            return Failed(path=path, error=clean_text(reply["error"]))
        if reply["status"] != "explained":
            raise ValueError(reply["status"])
        return reply

    def _malformed(self) -> Failed:
        return Failed(path=self._target.path, error="its process gave a malformed answer")

    def _pair(self, reply: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
        spec, size = subject.input_spec, self._patch_size
        told = reply["pair"]
        fit, held_out = reply["per_class"]
        pair = PairTrigger(
            source_class=_whole(told["source_class"], spec.num_classes - 1),
            target_class=_whole(told["target_class"], spec.num_classes - 1),
            patch=_pixels(told["patch"], (spec.channels, size, size)),
            flips=_flips(told, spec),
        )
        total = _whole(reply["total"], _MOST)
        return {
            "pair": pair,
            "right": _whole(reply["right"], total),
            "total": total,
            "per_class": (_whole(fit, _MOST), _whole(held_out, _MOST)),
        }

    def _triggers(
        self, reply: Mapping[str, Any], targets: tuple[int, ...], subject: Subject
    ) -> list[Trigger]:
        spec, told = subject.input_spec, reply["masks"]
        if [each["target_class"] for each in told] != list(targets):
            raise ValueError("other classes than were asked for")
        return [
            Trigger(
                target_class=target,
                norm=_norm(each["norm"], spec),
                mask=_pixels(each["mask"], (1, spec.height, spec.width)),
                pattern=_pixels(each["pattern"], spec.image_shape),
                flips=_flips(each, spec),
            )
            for target, each in zip(targets, told, strict=True)
        ]


_MALFORMED: Final = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    AttributeError,
    binascii.Error,
)


def _flips(told: Mapping[str, Any], spec: InputSpec) -> Flips:
    images, last = _whole(told["images"], _MOST), spec.num_classes - 1
    answers = tuple((_whole(a, last), _whole(b, last)) for a, b in told["answers"])
    if len(answers) > _EXAMPLES:
        raise ValueError("too many examples")
    shape = (len(answers), *spec.image_shape)
    return Flips(
        images=images,
        turned=_whole(told["turned"], images),
        before=_pixels(told["before"], shape),
        after=_pixels(told["after"], shape),
        answers=answers,
    )


def _pixels(text: object, shape: tuple[int, ...]) -> Pixels:
    """Decode bytes in Base64 to values in [0, 1]; raises ValueError where there are too many."""
    if not isinstance(text, str):
        raise TypeError(text)
    levels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    return (levels.reshape(shape) / 255).astype(np.float32)


def _whole(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(value)
    return value


def _norm(value: object, spec: InputSpec) -> float:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(value)
    if not 0 <= value <= spec.height * spec.width * 1.001:
        raise ValueError(value)
    return float(value)
