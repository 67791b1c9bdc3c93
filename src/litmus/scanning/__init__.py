"""Scanning: model files and a detector in, one result a file out; nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litmus.errors import UsageError
from litmus.scanning.crew import Crew
from litmus.scanning.results import Failed, Limits, ScanResult, Scored, Skipped, exit_code
from litmus.scanning.targets import Target, find_targets

if TYPE_CHECKING:
    from litmus.detectors.candidates import Candidates
    from litmus.formats.preprocessing import Preprocessing
    from litmus.scanning.judge import Judge

__all__ = ["Failed", "Limits", "ScanResult", "Scored", "Skipped", "exit_code", "scan"]


def scan(
    paths: str | Path | Iterable[str | Path],
    *,
    detector: str | Path | Candidates | None = None,
    fpr: float = 0.05,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    jobs: int = 1,
    limits: Limits | None = None,
    architecture: str | None = None,
    trust_code: bool = False,
) -> Generator[ScanResult, None, None]:
    """Score model files, yielding one result a file in the order of `paths`.

    A path is a file or a folder, see `find_targets`. `detector` is a file or the name of a bundled
    one; by default each model's shape picks one of those that are bundled, and a model that fits
    none is skipped. `fpr` is the share of clean models that may be called suspicious; a picked
    detector that can't promise it fails the file. `preprocessing` holds for every third-party file
    and overrides its sidecar key by key. `architecture` is the network of files that hold weights
    alone: `resnet:width=16,blocks=2`, or `module:function` of the user's own, which a file's
    process imports, if `trust_code`. Each file is read by a process of its own under `limits`,
    `jobs` at a time; closing the generator ends them. Raises UsageError or DetectorError before
    the first result.
    """
    if jobs < 1:
        raise UsageError("--jobs is impossible", expected="at least 1", got=jobs)
    if architecture is not None:
        from litmus.formats.stated_network import StatedNetwork

        StatedNetwork.parse(architecture, trust_code=trust_code)
    listed = [paths] if isinstance(paths, str | Path) else paths
    with Crew(jobs, asdict(limits or Limits())) as crew:
        # Imports numpy, as the process that was just started does at the same time.
        from litmus.scanning.judge import Judge

        candidates = _candidates(detector)
        judge = Judge(candidates, fpr)
        shared = {
            "preprocessing": _stated(preprocessing),
            "architecture": architecture,
            "trust_code": trust_code,
            # Named by the user, who wants this one; otherwise a model's shape is to pick.
            "resize": candidates.named,
        }
        crew.set_up(candidates.files, architecture=architecture)
        yield from _in_order(find_targets(listed), crew, judge, shared)


def _candidates(detector: str | Path | Candidates | None) -> Candidates:
    from litmus.detectors.candidates import Candidates

    if isinstance(detector, Candidates):
        return detector
    return Candidates.bundled() if detector is None else Candidates.of(detector)


def _stated(preprocessing: Mapping[str, Any] | Preprocessing | None) -> dict[str, Any]:
    """The keys that were stated for every file, checked."""
    from litmus.formats.preprocessing import Preprocessing

    if not isinstance(preprocessing, Preprocessing):
        table = preprocessing or {}
        preprocessing = Preprocessing.from_table(table, "preprocessing: ", error=UsageError)
    return preprocessing.table()


def _in_order(
    targets: Iterable[Target], crew: Crew, judge: Judge, shared: Mapping[str, Any]
) -> Iterator[ScanResult]:
    from litmus.formats import FORMATS

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
            request = {"path": str(target.path), "format": target.format, **shared}
            has_architecture = shared["architecture"] is not None
            needs_torch = FORMATS[target.format].loads_torch(has_architecture=has_architecture)
            crew.give(index, request, needs_torch=needs_torch)
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
