"""Everything that Litmus raises on purpose.

LitmusError
├── UsageError            the call itself is wrong (exit code 4)
├── MissingExtraError     an optional dependency is not installed
├── DataError             images are missing or malformed
├── RecipeError           a recipe says something impossible
├── ZooError              a model zoo is missing, mixed or damaged
├── DetectorError         a detector file is missing, damaged or does not fit
└── ModelError            a model file can't be read or run
    ├── ShapeError              it leaves its input's shape open, and can't be run on this one
    └── UnsupportedModelError   it can be read, but Litmus can't scan its kind
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "DetectorError",
    "LitmusError",
    "MissingExtraError",
    "ModelError",
    "RecipeError",
    "ShapeError",
    "UnsupportedModelError",
    "UsageError",
    "ZooError",
]


class LitmusError(Exception):
    """A mistake that the user can mend: says what, expected, got and where."""

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        where: object = None,
    ) -> None:
        self.what, self.expected, self.got, self.where = what, expected, got, where
        text = what if where is None else f"{where}: {what}"
        details = [f"expected {expected}"] if expected is not None else []
        details += [f"got {got}"] if got is not None else []
        super().__init__(text + (f" ({', '.join(details)})" if details else ""))


class UsageError(LitmusError):
    """The call itself is wrong: an option's value, or options that exclude each other."""


class MissingExtraError(LitmusError):
    """An optional dependency is needed and not installed."""


class DataError(LitmusError):
    """Images are missing or malformed."""


class RecipeError(LitmusError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class ZooError(LitmusError):
    """A model zoo is missing, mixed or damaged."""


class DetectorError(LitmusError):
    """A detector file is missing, damaged, or does not fit the model."""


class ModelError(LitmusError):
    """A model file can't be read or run, or its outputs are not numbers."""


class ShapeError(ModelError):
    """A model file that leaves its input's shape open can't be run on the one expected of it."""


class UnsupportedModelError(ModelError):
    """A model file is whole, but of a kind that Litmus can't scan; it is skipped."""
