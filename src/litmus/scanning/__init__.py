"""Scanning: model files and a detector in, one result a file out; nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litmus.detectors.effort import EFFORTS, Effort
from litmus.errors import UsageError
from litmus.scanning.crew import Crew
from litmus.scanning.results import (
    FAIL_ON,
    Failed,
    Limits,
    Sandbox,
    ScanResult,
    Scored,
    Skipped,
    exit_code,
)
from litmus.scanning.targets import SERVED, Target, find_targets

if TYPE_CHECKING:
    from litmus.detectors.candidates import Candidates
    from litmus.formats.preprocessing import Preprocessing
    from litmus.scanning.judge import Judge

__all__ = [
    "FAIL_ON",
    "Failed",
    "Limits",
    "Sandbox",
    "ScanResult",
    "Scored",
    "Skipped",
    "exit_code",
    "scan",
]


def scan(
    paths: str | Path | Iterable[str | Path],
    *,
    detector: str | Path | Candidates | None = None,
    fpr: float = 0.05,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    jobs: int = 1,
    limits: Limits | None = None,
    effort: Effort = "standard",
    images: str | Path | None = None,
    architecture: str | None = None,
    trust_code: bool = False,
) -> Generator[ScanResult, None, None]:
    """Score model files, yielding one result a file in the order of `paths`.

    A path is a file, a folder, or the address of a served model, see `find_targets`. `detector` is
    a file or the name of a bundled one; by default each model's shape picks one of those that are
    bundled, and a model that fits none is skipped. `fpr` is the share of clean models that may be
    called suspicious; a picked detector that can't promise it fails the file. `preprocessing` holds
    for every third-party file and overrides its sidecar key by key. `architecture` is the network
    of files that hold weights alone: `resnet:width=16,blocks=2`, or `module:function` of the user's
    own, which a file's process imports, if `trust_code`. Each file is read by a process of its own
    under `limits`, `jobs` at a time; closing the generator ends them. `effort` says which parts of
    a detector are asked (see `litmus.detectors.effort`), each with limits of its own. `images`, a
    folder of pictures of the models' domain, serve the trigger search; parts that need them by
    class take a folder with one folder a class, or the name of a data set. Each result says what
    held its process, see
    `docs/sandbox.md`. A served model is asked by a process of its own under the same limits, which
    may use the network; without gradients. Raises UsageError, MissingExtraError or DetectorError
    before the first result.
    """
    if jobs < 1:
        raise UsageError("--jobs is impossible", expected="at least 1", got=jobs)
    check_effort(effort, images)
    check_architecture(architecture, trust_code)
    limits = limits or Limits.of(effort)
    listed = [paths] if isinstance(paths, str | Path) else paths
    with Crew(jobs, asdict(limits)) as crew:
        # Imports numpy, as the process that was just started does at the same time.
        from litmus.scanning.judge import Judge

        candidates = candidates_of(detector)
        candidates = candidates.at_effort(effort, images=images is not None)
        judge = Judge(candidates, fpr)
        shared = {
            "preprocessing": stated_keys(preprocessing),
            "architecture": architecture,
            "trust_code": trust_code,
            # Named by the user, who wants this one; otherwise a model's shape is to pick.
            "resize": candidates.named,
        }
        crew.set_up(candidates.files, effort=effort, images=images, architecture=architecture)
        yield from _in_order(find_targets(listed), crew, judge, shared, limits)


def check_architecture(architecture: str | None, trust_code: bool) -> None:
    """Raise UsageError where `--architecture` is malformed, or code without `--trust-code`."""
    if architecture is not None:
        from litmus.formats.stated_network import StatedNetwork

        StatedNetwork.parse(architecture, trust_code=trust_code)


def check_effort(effort: str, images: str | Path | None) -> None:
    """Raise UsageError for an unknown effort, or for images that none of its parts would take."""
    if effort not in EFFORTS:
        raise UsageError(
            "no such effort", expected=" or ".join(EFFORTS), got=effort, where="--effort"
        )
    if images is not None and effort == "quick":
        raise UsageError("--images are not for --effort quick", got=images)


def candidates_of(detector: str | Path | Candidates | None) -> Candidates:
    """Return the detectors that a caller means; None means the bundled ones."""
    from litmus.detectors.candidates import Candidates

    if isinstance(detector, Candidates):
        return detector
    return Candidates.bundled() if detector is None else Candidates.of(detector)


def stated_keys(preprocessing: Mapping[str, Any] | Preprocessing | None) -> dict[str, Any]:
    """Return the keys that were stated for every file, checked; raises UsageError."""
    from litmus.formats.preprocessing import Preprocessing

    if not isinstance(preprocessing, Preprocessing):
        table = preprocessing or {}
        preprocessing = Preprocessing.from_table(table, "preprocessing: ", error=UsageError)
    return preprocessing.table()


def _in_order(
    targets: Iterable[Target],
    crew: Crew,
    judge: Judge,
    shared: Mapping[str, Any],
    limits: Limits,
) -> Iterator[ScanResult]:
    given: dict[int, Target] = {}
    # Answers are judged when they are due, and not before the next file has been given out.
    done: dict[int, Callable[[], ScanResult]] = {}
    due = 0

    def hear() -> None:
        index, answer = crew.next_answer()
        done[index] = partial(judge.result, given.pop(index), answer)

    for index, target in enumerate(targets):
        if target.format:
            while not crew.has_room:
                hear()
            given[index] = target
            _give(crew, index, target, shared, limits)
        elif target.skipped:
            done[index] = partial(Skipped, path=target.path, reason=target.skipped)
        else:
            done[index] = partial(Failed, path=target.path, error=target.failed)
        while due in done:
            yield done.pop(due)()
            due += 1
    while crew.busy:
        hear()
        while due in done:
            yield done.pop(due)()
            due += 1


def _give(
    crew: Crew,
    index: int,
    target: Target,
    shared: Mapping[str, Any],
    limits: Limits,
) -> None:
    """Hand out a file, or the address of a served model."""
    request = {"path": str(target.path), "format": target.format, **shared}
    if target.format == SERVED:
        from litmus.server_address import bearer_token

        asked = {"token": bearer_token(), "seconds": limits.wall_seconds}
        crew.give(index, {**request, **asked}, network=True)
        return
    from litmus.formats import FORMATS

    has_architecture = shared["architecture"] is not None
    loads_torch = FORMATS[target.format].loads_torch(has_architecture=has_architecture)
    crew.give(index, request, needs_torch=loads_torch)
