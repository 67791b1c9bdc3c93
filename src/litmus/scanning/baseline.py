"""A baseline: what somebody has looked at and accepted, so that a pipeline reports only news."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from litmus.errors import UsageError
from litmus.scanning.results import ScanResult, Scored
from litmus.scanning.targets import SERVED

__all__ = ["Baseline", "digests_of"]

Digests = tuple[str, ...]

_SEVERITY: Final[Mapping[str, int]] = {"no evidence found": 0, "inconclusive": 1, "suspicious": 2}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Verdicts that are accepted, by the SHA-256 of the model's file and of what it refers to."""

    accepted: Mapping[Digests, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON report: all that was scored in it is accepted.

        Raises UsageError where it can't be read or is no such report.
        """
        try:
            content = json.loads(path.read_bytes())
        except OSError as fault:
            raise UsageError(
                f"can't be read: {fault.strerror}", got=path, where="--baseline"
            ) from fault
        except (ValueError, RecursionError) as fault:
            raise UsageError("no JSON", got=path, where="--baseline") from fault
        try:
            if content["schema_version"] != 1:
                raise ValueError("another schema_version than 1")
            scored = [
                entry
                for entry in content["results"]
                if entry["status"] == "scored" and entry["format"] != SERVED
            ]
            pairs = [_pair(entry) for entry in scored]
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise UsageError(
                "no baseline",
                expected="a report that `litmus scan -f json` wrote",
                got=f"{path}: {type(fault).__name__} {fault}",
                where="--baseline",
            ) from fault
        accepted: dict[Digests, str] = {}
        for digests, verdict in pairs:
            known = accepted.get(digests, verdict)
            accepted[digests] = max(verdict, known, key=_SEVERITY.__getitem__)
        return cls(accepted=accepted)

    def accepts(self, result: ScanResult) -> bool:
        """Return whether a result is known: the same file with a verdict no worse than before.

        A served model never is: it has no file to know it by.
        """
        if not isinstance(result, Scored) or result.verdict == "no evidence found":
            return False
        if result.model_sha256 is None:
            return False  # a server may run another model tomorrow
        digests = digests_of(result.model_sha256, dict(result.external_sha256))
        known = self.accepted.get(digests, "no evidence found")
        return _SEVERITY[result.verdict] <= _SEVERITY[known]


def digests_of(model: str, external: Mapping[str, str]) -> Digests:
    """Return what identifies a model: its file's digest, and those of others by their names."""
    return model, *(f"{name} {digest}" for name, digest in sorted(external.items()))


def _pair(entry: Mapping[str, Any]) -> tuple[Digests, str]:
    model, external, verdict = entry["model_sha256"], entry["external_sha256"], entry["verdict"]
    for digest in (model, *external.values()):
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"SHA-256 {digest!r}")
    if verdict not in _SEVERITY:
        raise ValueError(f"verdict {verdict!r}")
    return digests_of(model, external), verdict
