"""How hard a scan looks: which parts are asked, told in steps and never in seconds."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["EFFORTS", "Effort", "reaches"]

Effort = Literal["quick", "standard", "thorough"]
EFFORTS: Final[tuple[Effort, ...]] = ("quick", "standard", "thorough")
"""Without gradients; with the trigger search; with all that a model and its user permit."""


def reaches(effort: Effort, needed: Effort) -> bool:
    """Return whether an effort is at least another."""
    return EFFORTS.index(effort) >= EFFORTS.index(needed)
