"""From what the process of a file said to a result; nothing that it said is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from litmus.artifacts import sha256_of
from litmus.detectors import Detector, Measurement
from litmus.detectors.candidates import Candidates
from litmus.errors import ModelError, UsageError
from litmus.formats.onnx_external import inside_folder
from litmus.formats.resizing import may_resize
from litmus.models import InputSpec
from litmus.scanning.results import Failed, Sandbox, ScanResult, Scored, Skipped, printable
from litmus.scanning.targets import Address, Target

__all__ = ["Judge", "clean_all", "clean_text", "digests_of_external", "sandbox_of"]

_MAX_NOTES: Final = 50
_MAX_TEXT: Final = 1000
_MAX_SHAPE: Final = 80
_MAX_FILES: Final = 1000
_MAX_BYTES: Final = 2**32


class Judge:
    """Detectors, and the false-positive rate at which they turn answers into results."""

    def __init__(self, candidates: Candidates, fpr: float) -> None:
        candidates.check_fpr(fpr)
        self._candidates = candidates
        self._fpr = fpr

    def result(self, target: Target, answer: Mapping[str, Any]) -> ScanResult:
        """Return the result for one file: `answer` is a mother's, the reply in it a child's."""
        return replace(self._believed(target, answer), sandbox=sandbox_of(answer))

    def _believed(self, target: Target, answer: Mapping[str, Any]) -> ScanResult:
        if "failed" in answer:
            return Failed(path=target.path, error=clean_text(answer["failed"]))
        try:
            reply = json.loads(answer["reply"])
            return self._result(target, answer, reply)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return Failed(path=target.path, error="its process gave a malformed answer")

    def _result(
        self, target: Target, answer: Mapping[str, Any], reply: Mapping[str, Any]
    ) -> ScanResult:
        """Raises ValueError, TypeError, KeyError or OverflowError for a malformed reply."""
        if reply["status"] == "skipped":
            return Skipped(path=target.path, reason=clean_text(reply["reason"]))
        if reply["status"] == "failed":
            return Failed(path=target.path, error=clean_text(reply["error"]))
        if reply["status"] == "unmatched":
            resizable = clean_all(reply["resizable"][:_MAX_NOTES])
            reason = self._candidates.why_none(clean_text(reply["takes"])[:_MAX_SHAPE], resizable)
            return Skipped(path=target.path, reason=reason)
        if reply["status"] != "scored":
            raise ValueError(reply["status"])
        name, detector, calibrated = self._detector(reply)
        measurement = _measurement(reply, detector)
        evidence = measurement.evidence
        if evidence is not None:
            # Texts of the file's process; all else of it was checked when it was read.
            evidence = replace(
                evidence,
                place=clean_text(evidence.place),
                images_from=clean_text(evidence.images_from),
            )
        classes, external = clean_all(reply["classes"]), clean_all(reply["external_files"])
        try:
            judgement = detector.judge(
                measurement, fpr=self._fpr, out_of_scope=clean_text(reply["out_of_scope"])
            )
            digests = digests_of_external(target.path, external)
        except (ModelError, OSError) as fault:
            return Failed(path=target.path, error=f"external data: {fault}")
        except UsageError as fault:
            # Another of the candidates can promise this rate, and this model's can't.
            return Failed(path=target.path, error=f"detector {name}: {fault}")
        return Scored(
            path=target.path,
            score=judgement.score,
            p_value=judgement.p_value,
            probability=judgement.probability,
            verdict=judgement.verdict if calibrated else "inconclusive",
            notes=(
                *([f"found: {evidence.words(classes)}"] if evidence else []),
                *self._candidates.how_picked(name),
                *clean_all(reply["notes"][:_MAX_NOTES]),
                # What a fused detector says of its parts comes from the file's process, too.
                *clean_all(list(judgement.notes)),
            ),
            seconds=answer["seconds"],
            model_sha256=answer["sha256"],
            detector=name,
            detector_sha256=self._candidates.sha256[name],
            format=target.format,
            classes=classes,
            log_probs=tuple(tuple(row) for row in measurement.log_probs),
            external_sha256=digests,
            member_scores=tuple(measurement.member_scores),
            parts=tuple(measurement.parts),
            out_of_scope=clean_all(list(judgement.out_of_scope)),
            evidence=evidence,
        )

    def _detector(self, reply: Mapping[str, Any]) -> tuple[str, Detector, bool]:
        """Return the detector that a child says it used, and whether it is calibrated for its file.

        It is where the model has the detector's own size, and not where images were resized, as
        they may be for a detector that the user named. Raises ValueError for an impossible one.

        Only one that the mother loaded will do, for the shape that the child says the model has.
        That shape nobody can check here, so that a subverted child may claim another and choose
        among these detectors. It gains nothing by that: it could make up its file's scores
        anyway. No other file is judged by its choice, and none that only a name calls can be had.
        """
        name = reply["detector"]
        if not isinstance(name, str) or name not in self._candidates.detectors:
            raise ValueError("no such detector")
        detector = self._candidates.detectors[name]
        if reply["input_spec"] == detector.input_spec.to_json():
            return name, detector, True
        own_spec = InputSpec.from_json(reply["input_spec"])
        if not self._candidates.named or not may_resize(own_spec, detector.input_spec):
            raise ValueError("a detector for models of another shape")
        return name, detector, False


def sandbox_of(answer: Mapping[str, Any]) -> Sandbox | None:
    """Return what a mother says that held its child; a mother that is dead says nothing."""
    told = answer.get("sandbox")
    if told is None:
        return None
    refused = tuple((name, reason) for name, reason in told["refused"])
    return Sandbox(landlock=told["landlock"], seccomp=told["seccomp"], refused=refused)


def _measurement(reply: Mapping[str, Any], detector: Detector) -> Measurement:
    """Read a child's measurement; raises ValueError, TypeError or KeyError on nonsense."""
    measurement = Measurement.from_json(reply["measurement"], detector.input_spec)
    calibration = detector.calibration_of(measurement.parts)
    if len(measurement.member_scores) <= int(calibration.members.max()):
        raise ValueError("too few members")
    if len(measurement.left_out) > _MAX_NOTES:
        raise ValueError("too many parts")
    rows = np.asarray(measurement.log_probs, dtype=np.float64)
    if rows.size and (
        rows.ndim != 2
        or rows.shape[1] != detector.input_spec.num_classes
        or not np.isfinite(rows).all()
    ):
        raise ValueError("log-probabilities of an impossible kind")
    return measurement


def digests_of_external(
    path: Path | Address, external: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return the digests of files that a model's file refers to, taken here and not in the child.

    Raises ModelError where one lies outside of the model's folder or is too large, OSError where
    it can't be read.
    """
    if not isinstance(path, Path):
        return ()  # a server's, which has no files here
    files = {name: inside_folder(path, name) for name in external[:_MAX_FILES]}
    if len(external) > _MAX_FILES or sum(f.stat().st_size for f in files.values()) > _MAX_BYTES:
        raise ModelError("too many or too large files")
    return tuple((name, sha256_of(file)) for name, file in files.items())


def clean_text(text: object) -> str:
    """Return a text that a hostile file may have chosen, printable and not too long.

    Raises TypeError where it is none.
    """
    if not isinstance(text, str):
        raise TypeError(text)
    return printable(text[:_MAX_TEXT])


def clean_all(texts: object) -> tuple[str, ...]:
    """Return a list of such texts, clean; raises TypeError where it is none."""
    if not isinstance(texts, list):
        raise TypeError(texts)
    return tuple(clean_text(text) for text in texts)
