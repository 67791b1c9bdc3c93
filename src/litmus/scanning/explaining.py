"""Explaining: a model file and clean images in, reversed triggers out; nothing is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError
from litmus.scanning import candidates_of, check_architecture, check_thorough, stated_keys
from litmus.scanning.crew import Crew
from litmus.scanning.explanation import Explanation, Subject
from litmus.scanning.explanation_reader import Reader
from litmus.scanning.results import Failed, Limits, Skipped
from litmus.scanning.targets import SERVED, Target, find_targets

if TYPE_CHECKING:
    from litmus.detectors.candidates import Candidates
    from litmus.formats.preprocessing import Preprocessing

__all__ = ["ExplainSettings", "explain"]

_AT_A_TIME: Final = 5
"""Classes in one request: progress is told between them."""
_ROOM: Final = 2_000_000
"""Bytes of pixels in one reply, about half of what one may have in Base64."""
_PLACES: Final = ("corner", "anywhere", "surface")


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """How triggers are reversed.

    Masks for `classes` (all by default), as the model counts them, take `steps` steps each; a patch
    of `patch_size` pixels lies at a `place` of `litmus.attacks.places`. No request is begun
    `seconds` after the first, and one that is not ready then is left out.
    """

    steps: int = 200
    patch_size: int = 5
    place: str = "corner"
    classes: tuple[int, ...] | None = None
    seconds: float = 1800.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, steps=1, patch_size=1)
        check_choices(self, place=_PLACES)
        if not 0 < self.seconds < 1e9:
            raise UsageError("an impossible time limit", expected="above 0", got=self.seconds)
        if self.classes is not None and not self.classes:
            raise UsageError("no classes to explain")

    def targets(self, outputs: Sequence[int]) -> tuple[int, ...]:
        """Return the places in `outputs`, the model's numbers of its classes, of those asked for.

        Raises UsageError where the model has no such class.
        """
        chosen = outputs if self.classes is None else self.classes
        for target in chosen:
            if target not in outputs:
                raise UsageError("no such class", expected=f"0 to {len(outputs) - 1}", got=target)
        return tuple(dict.fromkeys(map(outputs.index, chosen)))


def explain(
    path: str | Path,
    *,
    images: str | Path,
    settings: ExplainSettings | None = None,
    detector: str | Path | Candidates | None = None,
    preprocessing: Mapping[str, Any] | Preprocessing | None = None,
    jobs: int = 1,
    architecture: str | None = None,
    trust_code: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Explanation | Skipped | Failed:
    """Reverse triggers of one model file on clean `images`, and count what they flip.

    `images` are as for `scan`. A detector of the model's shape, bundled or named, finds out how it
    wants its input; none is needed otherwise. The file is read by processes of their own only, one
    for some classes each, `jobs` at a time. Raises UsageError, MissingExtraError, or DetectorError
    where the images do not fit.
    """
    settings = settings or ExplainSettings()
    if jobs < 1:
        raise UsageError("--jobs is impossible", expected="at least 1", got=jobs)
    check_thorough(thorough=True, images=images)
    check_architecture(architecture, trust_code)
    target = _only(path)
    if target.format == SERVED:
        reason = "a server gives answers and no gradients: explain the model's file"
        return Skipped(path=target.path, reason=reason)
    if target.skipped:
        return Skipped(path=target.path, reason=target.skipped)
    if target.failed:
        return Failed(path=target.path, error=target.failed)
    candidates = candidates_of(detector)
    request = {
        "path": str(target.path),
        "format": target.format,
        "preprocessing": stated_keys(preprocessing),
        "thorough": True,
        "architecture": architecture,
        "trust_code": trust_code,
        "resize": False,
    }
    job = _Job(target, request, settings, candidates, images, jobs, on_progress)
    return job.run()


def _only(path: str | Path) -> Target:
    if Path(path).is_dir():
        raise UsageError("one model file is explained at a time", got=path)
    (target,) = find_targets([path])
    return target


@dataclass(frozen=True)
class _Job:
    """One file, in two crews: the first tells its shape, for which the second loads images."""

    target: Target
    request: Mapping[str, Any]
    settings: ExplainSettings
    candidates: Candidates
    images: str | Path
    jobs: int
    on_progress: Callable[[int, int, str], None]

    def run(self) -> Explanation | Skipped | Failed:
        limits = asdict(replace(Limits.thorough(), wall_seconds=self.settings.seconds))
        started = time.monotonic()
        with Crew(1, limits) as first, Crew(self.jobs, limits) as crew:
            self._set_up(first)
            first.give(0, self._asked("describe", ()), needs_torch=self._loads_torch())
            self.on_progress(0, 1, "reading the model")
            reader = Reader(self.target, self.settings.patch_size)
            subject = reader.subject(first.next_answer()[1])
            if not isinstance(subject, Subject):
                return subject
            self._set_up(crew, subject)
            answers = self._answers(crew, subject, started)
        return reader.explanation(subject, answers, time.monotonic() - started)

    def _set_up(self, crew: Crew, subject: Subject | None = None) -> None:
        explained: dict[str, object] | None = None
        if subject is not None:
            explained = {
                "images": str(self.images),
                "input_spec": subject.input_spec.to_json(),
                "seed": self.settings.seed,
            }
        architecture = self.request["architecture"]
        crew.set_up(self.candidates.files, architecture=architecture, explained=explained)

    def _loads_torch(self) -> bool:
        from litmus.formats import FORMATS

        has_architecture = self.request["architecture"] is not None
        return FORMATS[self.target.format].loads_torch(has_architecture=has_architecture)

    def _answers(
        self, crew: Crew, subject: Subject, started: float
    ) -> list[tuple[tuple[int, ...], Mapping[str, Any]]]:
        """Return what was asked for and answered: the pair for no class, masks for some each."""
        targets = self.settings.targets(subject.outputs)
        chunks: list[tuple[int, ...]] = [(), *_chunks(targets, subject)]
        answers: dict[int, Mapping[str, Any]] = {}
        done = 0

        def hear() -> None:
            nonlocal done
            index, answer = crew.next_answer()
            answers[index] = answer
            done += len(chunks[index]) or 1
            self.on_progress(done, len(targets) + 1, "")

        self.on_progress(0, len(targets) + 1, "")
        for index, chunk in enumerate(chunks):
            while not crew.has_room:
                hear()
            left = self.settings.seconds - (time.monotonic() - started)
            if left <= 0:
                break
            # All pairs of many classes take long: half of the time is for the masks.
            asked = (
                self._asked("masks", chunk, left)
                if chunk
                else self._asked("pair", targets, left / 2)
            )
            crew.give(index, asked, needs_torch=True)
        while crew.busy:
            hear()
        return [(chunk, answers.get(index, {})) for index, chunk in enumerate(chunks)]

    def _asked(
        self, what: str, targets: Sequence[int], seconds: float | None = None
    ) -> dict[str, Any]:
        s = self.settings
        asked = {
            "what": what,
            "targets": list(targets),
            "seconds": seconds or s.seconds,
            "steps": s.steps,
            "seed": s.seed,
            "patch_size": s.patch_size,
            "place": s.place,
        }
        return {**self.request, "explain": asked}


def _chunks(targets: Sequence[int], subject: Subject) -> list[tuple[int, ...]]:
    """Return the classes of each request, so few that a reply has room for their pictures."""
    spec = subject.input_spec
    size = min(_AT_A_TIME, max(1, _ROOM // (10 * spec.channels * spec.height * spec.width)))
    return [tuple(targets[i : i + size]) for i in range(0, len(targets), size)]
