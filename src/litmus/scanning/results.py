"""What a scan returns, and the exit code that it amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.detectors import Verdict

__all__ = ["Failed", "Limits", "ScanResult", "Scored", "Skipped", "exit_code", "printable"]

_MOST: Final = 1e9
_FINDINGS: Final[Mapping[str, frozenset[str]]] = {
    "suspicious": frozenset({"suspicious"}),
    "inconclusive": frozenset({"suspicious", "inconclusive"}),
    "never": frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may take: `wall_seconds` (of processor time, too), and memory in MiB."""

    wall_seconds: float = 60.0
    memory_mib: float = 4096.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < _MOST:
                expected = f"above 0, below {_MOST:g}"
                raise UsageError("an impossible limit", expected=expected, got=value, where=name)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A file that was scored, by the `detector` of this name.

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
    detector: str
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


def exit_code(
    results: Iterable[ScanResult],
    *,
    strict: bool = False,
    fail_on: str = "suspicious",
) -> int:
    """Return 1 (something found) before 2 (an error) before 3 (nothing scannable), otherwise 0.

    `fail_on` says from which verdict on something is found: `suspicious`, `inconclusive` or
    `never`. `strict` makes a skip an error. Raises UsageError for another `fail_on`.
    """
    if fail_on not in _FINDINGS:
        expected = f"one of {', '.join(_FINDINGS)}"
        raise UsageError("impossible", expected=expected, got=fail_on, where="--fail-on")
    kept = list(results)
    verdicts = {result.verdict for result in kept if isinstance(result, Scored)}
    if verdicts & _FINDINGS[fail_on]:
        return 1
    errors = (Failed, Skipped) if strict else (Failed,)
    if any(isinstance(result, errors) for result in kept):
        return 2
    return 0 if verdicts else 3


def printable(text: str) -> str:
    """Return a text that a hostile file chose, its name say, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)
