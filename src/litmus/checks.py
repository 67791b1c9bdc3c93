"""What settings must be, whichever method they are for."""

from __future__ import annotations

from collections.abc import Collection

from litmus.errors import UsageError

__all__ = ["check_at_least", "check_choices"]


def check_at_least(settings: object, **lowest: float) -> None:
    """Raise UsageError for the first field of `settings` that is below its lowest value."""
    for name, low in lowest.items():
        value = getattr(settings, name)
        if not value >= low:
            raise UsageError(f"{name} is impossible", expected=f">= {low:g}", got=value)


def check_choices(settings: object, **choices: Collection[str]) -> None:
    """Raise UsageError for the first field of `settings` that is none of its choices."""
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise UsageError(f"unknown {name}", expected=" or ".join(allowed), got=value)
