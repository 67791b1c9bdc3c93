"""What a scan returns, and the exit code that it amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from litmus.detectors.effort import Effort
from litmus.detectors.evidence import Evidence
from litmus.errors import UsageError
from litmus.scanning.targets import Address

if TYPE_CHECKING:
    from litmus.detectors import Verdict
    from litmus.scanning.baseline import Baseline

__all__ = [
    "FAIL_ON",
    "Failed",
    "Limits",
    "Sandbox",
    "ScanResult",
    "Scored",
    "Skipped",
    "exit_code",
    "is_finding",
    "printable",
]

_MOST: Final = 1e9
_FINDINGS: Final[Mapping[str, frozenset[str]]] = {
    "suspicious": frozenset({"suspicious"}),
    "inconclusive": frozenset({"suspicious", "inconclusive"}),
    "never": frozenset(),
}
_OPEN: Final[Mapping[str, str]] = {
    "landlock": "could read files elsewhere",
    "seccomp": "could reach the network and other processes",
}
FAIL_ON: Final = tuple(_FINDINGS)
"""From which verdict on something is found."""


_LIMITS: Final[Mapping[Effort, tuple[float, float]]] = {
    "quick": (60.0, 4096.0),
    "standard": (600.0, 4096.0),
    "thorough": (1800.0, 8192.0),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may take: `wall_seconds` (of processor time, too), and memory in MiB."""

    wall_seconds: float = 60.0
    memory_mib: float = 4096.0

    @classmethod
    def of(cls, effort: Effort) -> Self:
        """Return what a file may take by default at an effort."""
        seconds, memory = _LIMITS[effort]
        return cls(wall_seconds=seconds, memory_mib=memory)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < _MOST:
                expected = f"above 0, below {_MOST:g}"
                raise UsageError("an impossible limit", expected=expected, got=value, where=name)


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What the kernel grants against a hostile file, without privilege.

    `landlock` is its version (ABI), 0 where there is none. `refused` are pairs of a mechanism's
    name and why it can't be had.
    """

    landlock: int
    seccomp: bool
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def held(self) -> tuple[str, ...]:
        """The mechanisms that confine the process of a file."""
        return (
            *([f"landlock {self.landlock}"] if self.landlock else []),
            *(["seccomp"] if self.seccomp else []),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What the process of a hostile file could do, and why."""
        return tuple(f"{_OPEN[name]} ({name}: {reason})" for name, reason in self.refused)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A file that was scored, by the `detector` of this name.

    `score` is higher for a more suspicious model, `p_value` how often a clean one scores at least
    as high, `probability` that of a backdoor at even prior odds. `notes` tells what was assumed
    and what is out of scope, `out_of_scope` those of them that say why there is no verdict;
    `log_probs` (queries, classes) are the model's answers; `seconds`
    the time for this file, in which its process was made, too. `external_sha256` are the files
    beside the model's that hold weights of it, with their digests. `member_scores` are what the
    detector's members said, and `parts` those of a fused detector's parts that did. `sandbox` is
    what its process was held by, here and where there is no score; None without a process. A
    served model has the address of its server for a `path`, and no `model_sha256`. `evidence` is
    the trigger that a search found, whatever the verdict.
    """

    path: Path | Address
    score: float
    p_value: float
    probability: float
    verdict: Verdict
    notes: tuple[str, ...]
    seconds: float
    model_sha256: str | None
    detector: str
    detector_sha256: str
    format: str
    classes: tuple[str, ...] = ()
    log_probs: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    external_sha256: tuple[tuple[str, str], ...] = ()
    member_scores: tuple[float, ...] = ()
    parts: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    sandbox: Sandbox | None = field(default=None, compare=False)
    evidence: Evidence | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is whole and can't be scanned."""

    path: Path | Address
    reason: str
    sandbox: Sandbox | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A file that is broken, missing, or took more than its limits."""

    path: Path | Address
    error: str
    sandbox: Sandbox | None = field(default=None, compare=False)


ScanResult = Scored | Skipped | Failed


def is_finding(result: ScanResult, fail_on: str = "suspicious") -> bool:
    """Return whether a result is one that `--fail-on` asks for: from this verdict on."""
    return isinstance(result, Scored) and result.verdict in _FINDINGS[fail_on]


def exit_code(
    results: Iterable[ScanResult],
    *,
    strict: bool = False,
    fail_on: str = "suspicious",
    baseline: Baseline | None = None,
) -> int:
    """Return 1 (something found) before 2 (an error) before 3 (nothing scannable), otherwise 0.

    `fail_on` says from which verdict on something is found: `suspicious`, `inconclusive` or
    `never`. What `baseline` accepts is not. `strict` makes a skip an error. Raises UsageError for
    another `fail_on`.
    """
    if fail_on not in FAIL_ON:
        expected = f"one of {', '.join(FAIL_ON)}"
        raise UsageError("impossible", expected=expected, got=fail_on, where="--fail-on")
    kept = list(results)
    found = [result for result in kept if is_finding(result, fail_on)]
    if any(baseline is None or not baseline.accepts(result) for result in found):
        return 1
    errors = (Failed, Skipped) if strict else (Failed,)
    if any(isinstance(result, errors) for result in kept):
        return 2
    return 0 if any(isinstance(result, Scored) for result in kept) else 3


def printable(text: str) -> str:
    """Return a text that a hostile file chose, its name say, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)
