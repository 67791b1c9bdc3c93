"""From what a file's processes said to an explanation; nothing of it is believed unchecked."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from litmus.errors import ModelError
from litmus.models import InputSpec
from litmus.scanning.explanation import Explanation, Flips, PairTrigger, Pixels, Subject, Trigger
from litmus.scanning.judge import clean_all, clean_text, digests_of_external, sandbox_of
from litmus.scanning.results import Failed, Skipped
from litmus.scanning.targets import Target

__all__ = ["Reader"]

_MOST: Final = 10**6
_EXAMPLES: Final = 3
_LARGEST: Final = InputSpec(channels=16, height=1024, width=1024, num_classes=10_000)


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
        refusals: list[Skipped | Failed] = []
        names: tuple[str, ...] = ()
        try:
            for targets, answer in answers:
                reply = self._reply(answer) if answer else None
                if reply is None or isinstance(reply, Skipped | Failed):
                    classes = [subject.outputs[target] for target in targets]
                    left_out.append(_what_lacks(classes, reply))
                    refusals += [] if reply is None else [reply]
                elif targets:
                    triggers += self._triggers(reply, targets, subject)
                else:
                    found |= self._pair(reply, subject)
                    names = clean_all(reply["names"])
        except _MALFORMED:
            return self._malformed()
        if not triggers and found["pair"] is None:
            late = Failed(path=self._target.path, error="nothing was ready within the time limit")
            return refusals[0] if refusals else late
        k = subject.input_spec.num_classes
        return Explanation(
            path=self._target.path,
            subject=subject,
            classes=subject.classes or (names if len(names) == k else tuple(map(str, range(k)))),
            triggers=tuple(triggers),
            left_out=tuple(left_out),
            seconds=seconds,
            # One kernel holds them all.
            sandbox=next((held for _, answer in answers if (held := sandbox_of(answer))), None),
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


def _what_lacks(classes: Sequence[int], reply: Skipped | Failed | None) -> str:
    what = f"classes {', '.join(map(str, classes))}" if classes else "pairs of classes"
    if reply is None:
        return f"{what}: the time was up"
    return f"{what}: {reply.error if isinstance(reply, Failed) else reply.reason}"


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
