"""Scanning: model files and a detector in, one result a file out; nothing is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from litmus.errors import UsageError
from litmus.scan_crew import Crew
from litmus.scan_targets import Target, find_targets

if TYPE_CHECKING:
    from litmus.detectors import Detector, Measurement, Verdict
    from litmus.formats.preprocessing import Preprocessing

# What needs numpy is imported inside functions: the process that scores starts first, and both
# import at the same time.

__all__ = ["Failed", "Limits", "ScanResult", "Scored", "Skipped", "exit_code", "scan"]

_MAX_NOTES: Final = 50
_MAX_TEXT: Final = 1000
_MOST: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may take: seconds of wall-clock and of processor time, and memory in MiB."""

    seconds: float = 60.0
    memory_mib: float = 4096.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < _MOST:
                expected = f"above 0, below {_MOST:g}"
                raise UsageError("an impossible limit", expected=expected, got=value, where=name)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A file that was scored.

    `score` is higher for a more suspicious model, `p_value` how often a clean one scores at least
    as high, `probability` that of a backdoor at even prior odds. `notes` tells what was assumed
    and what is out of scope; `log_probs` (queries, classes) are the model's answers; `seconds`
    the time for this file, in which its process was made, too.
    """

    path: Path
    score: float
    p_value: float
    probability: float
    verdict: Verdict
    notes: tuple[str, ...]
    seconds: float
    model_sha256: str
    detector_sha256: str
    format: str
    classes: tuple[str, ...] = ()
    log_probs: tuple[tuple[float, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is whole and can't be scanned."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A file that is broken, missing, or took more than its limits."""

    path: Path
    error: str


ScanResult = Scored | Skipped | Failed


def scan(
    paths: str | Path | Iterable[str | Path],
    *,
    detector: str | Path,
    fpr: float = 0.05,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    jobs: int = 1,
    limits: Limits | None = None,
) -> Iterator[ScanResult]:
    """Score model files, yielding one result a file in the order of `paths`.

    A path is a file or a folder, see `find_targets`. `detector` is a file or the name of a bundled
    one, `fpr` the share of clean models that may be called suspicious. `preprocessing` holds for
    every third-party file and overrides its sidecar key by key. Each file is read by a process of
    its own under `limits`, `jobs` at a time; closing the generator ends them. Raises UsageError or
    DetectorError before the first result.
    """
    if jobs < 1:
        raise UsageError("--jobs is impossible", expected="at least 1", got=jobs)
    listed = [paths] if isinstance(paths, str | Path) else paths
    with Crew(jobs, asdict(limits or Limits())) as crew:
        judge = _Judge(detector, fpr)
        stated = _stated(preprocessing)
        crew.set_up(judge.path)
        yield from _in_order(find_targets(listed), crew, judge, stated)


def exit_code(
    results: Iterable[ScanResult],
    *,
    strict: bool = False,
    fail_on: Literal["suspicious", "inconclusive", "never"] = "suspicious",
) -> int:
    """Return 1 (something found) before 2 (an error) before 3 (nothing scannable), otherwise 0.

    `fail_on` says from which verdict on something is found; `strict` makes a skip an error.
    """
    kept = list(results)
    verdicts = {result.verdict for result in kept if isinstance(result, Scored)}
    found = {
        "suspicious": {"suspicious"},
        "inconclusive": {"suspicious", "inconclusive"},
        "never": set(),
    }[fail_on]
    if verdicts & found:
        return 1
    errors = (Failed, Skipped) if strict else (Failed,)
    if any(isinstance(result, errors) for result in kept):
        return 2
    return 0 if verdicts else 3


def _stated(preprocessing: Mapping[str, Any] | Preprocessing | None) -> dict[str, Any]:
    """The keys that were stated for every file, checked."""
    from litmus.formats.preprocessing import Preprocessing

    if not isinstance(preprocessing, Preprocessing):
        table = preprocessing or {}
        preprocessing = Preprocessing.from_table(table, "preprocessing", error=UsageError)
    return preprocessing.table()


def _in_order(
    targets: Iterable[Target], crew: Crew, judge: _Judge, stated: Mapping[str, Any]
) -> Iterator[ScanResult]:
    from litmus.formats import FORMATS

    given: dict[int, Target] = {}
    done: dict[int, ScanResult] = {}
    due = 0

    def hear() -> None:
        index, answer = crew.next_answer()
        done[index] = judge.result(given.pop(index), answer)

    for index, target in enumerate(targets):
        if target.format:
            while not crew.has_room:
                hear()
            given[index] = target
            request = {"path": str(target.path), "format": target.format, "preprocessing": stated}
            crew.give(index, request, needs_torch=FORMATS[target.format].needs_torch)
        elif target.skipped:
            done[index] = Skipped(path=target.path, reason=target.skipped)
        else:
            done[index] = Failed(path=target.path, error=target.failed)
        while due in done:
            yield done.pop(due)
            due += 1
    while crew.busy:
        hear()
        while due in done:
            yield done.pop(due)
            due += 1


class _Judge:
    """A detector that turns answers, of which it believes nothing, into results."""

    def __init__(self, detector: str | Path, fpr: float) -> None:
        from litmus.artifacts import sha256_of
        from litmus.detectors import find_detector, load_detector

        self.path = find_detector(detector)
        self._detector: Detector = load_detector(self.path)
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
            measurement = self._measurement(reply)
            notes = [_clean(note) for note in reply["notes"][:_MAX_NOTES]]
            classes = tuple(_clean(name) for name in reply["classes"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return Failed(path=target.path, error="its process gave a malformed answer")
        judgement = self._detector.judge(measurement, fpr=self._fpr)
        return Scored(
            path=target.path,
            score=judgement.score,
            p_value=judgement.p_value,
            probability=judgement.probability,
            verdict=judgement.verdict,
            notes=(*notes, *judgement.notes),
            seconds=answer["seconds"],
            model_sha256=answer["sha256"],
            detector_sha256=self._sha256,
            format=target.format,
            classes=classes,
            log_probs=tuple(tuple(row) for row in measurement.log_probs),
        )

    def _measurement(self, reply: Mapping[str, Any]) -> Measurement:
        """Read a child's measurement; raises ValueError, TypeError or KeyError on nonsense."""
        import numpy as np

        from litmus.detectors import Measurement

        measurement = Measurement.from_json(reply["measurement"])
        if len(measurement.member_scores) <= int(self._detector.calibration.members.max()):
            raise ValueError("too few members")
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
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_TEXT])
