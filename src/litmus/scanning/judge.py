"""From what the process of a file said to a result; nothing that it said is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from litmus.artifacts import sha256_of
from litmus.detectors import Measurement, find_detector, load_detector
from litmus.scanning.results import Failed, ScanResult, Scored, Skipped, printable
from litmus.scanning.targets import Target

__all__ = ["Judge"]

_MAX_NOTES: Final = 50
_MAX_TEXT: Final = 1000


class Judge:
    """A detector, and the false-positive rate at which it turns answers into results."""

    def __init__(self, detector: str | Path, fpr: float) -> None:
        self.path = find_detector(detector)
        self._detector = load_detector(self.path)
        self._detector.check_fpr(fpr)
        self._sha256 = sha256_of(self.path)
        self._fpr = fpr

    def result(self, target: Target, answer: Mapping[str, Any]) -> ScanResult:
        """Return the result for one file: `answer` is a mother's, the reply in it a child's."""
        if "failed" in answer:
            return Failed(path=target.path, error=_clean(answer["failed"]))
        try:
            reply = json.loads(answer["reply"])
            if reply["status"] == "skipped":
                return Skipped(path=target.path, reason=_clean(reply["reason"]))
            if reply["status"] == "failed":
                return Failed(path=target.path, error=_clean(reply["error"]))
            if reply["status"] != "scored":
                raise ValueError(reply["status"])
            measurement = self._measurement(reply)
            notes = _clean_all(reply["notes"][:_MAX_NOTES])
            out_of_scope = _clean(reply["out_of_scope"])
            classes = _clean_all(reply["classes"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return Failed(path=target.path, error="its process gave a malformed answer")
        judgement = self._detector.judge(measurement, fpr=self._fpr, out_of_scope=out_of_scope)
        return Scored(
            path=target.path,
            score=judgement.score,
            p_value=judgement.p_value,
            probability=judgement.probability,
            verdict=judgement.verdict,
            # What a fused detector says of its parts comes from the file's process, too.
            notes=(*notes, *_clean_all(list(judgement.notes))),
            seconds=answer["seconds"],
            model_sha256=answer["sha256"],
            detector_sha256=self._sha256,
            format=target.format,
            classes=classes,
            log_probs=tuple(tuple(row) for row in measurement.log_probs),
        )

    def _measurement(self, reply: Mapping[str, Any]) -> Measurement:
        """Read a child's measurement; raises ValueError, TypeError or KeyError on nonsense."""
        measurement = Measurement.from_json(reply["measurement"])
        calibration = self._detector.calibration_of(measurement)
        if len(measurement.member_scores) <= int(calibration.members.max()):
            raise ValueError("too few members")
        if len(measurement.left_out) > _MAX_NOTES:
            raise ValueError("too many parts")
        rows = np.asarray(measurement.log_probs, dtype=np.float64)
        if rows.size and (
            rows.ndim != 2
            or rows.shape[1] != self._detector.input_spec.num_classes
            or not np.isfinite(rows).all()
        ):
            raise ValueError("log-probabilities of an impossible kind")
        return measurement


def _clean(text: object) -> str:
    """A text that may come from a hostile file, without control characters and not too long."""
    if not isinstance(text, str):
        raise TypeError(text)
    return printable(text[:_MAX_TEXT])


def _clean_all(texts: object) -> tuple[str, ...]:
    if not isinstance(texts, list):
        raise TypeError(texts)
    return tuple(_clean(text) for text in texts)
