from __future__ import annotations

from dataclasses import dataclass

import pytest

from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError


@dataclass
class Settings:
    steps: int = 1
    rate: float = 0.5
    kind: str = "red"


def test_what_is_possible_passes() -> None:
    check_at_least(Settings(), steps=1, rate=0)
    check_choices(Settings(), kind=("red", "blue"))


def test_the_first_impossible_field_is_named() -> None:
    with pytest.raises(UsageError, match=r"rate is impossible \(expected >= 1, got 0.5\)"):
        check_at_least(Settings(), steps=1, rate=1)
    with pytest.raises(UsageError, match="steps is impossible"):
        check_at_least(Settings(steps=0), steps=1, rate=1)
    with pytest.raises(UsageError, match="rate is impossible"):
        check_at_least(Settings(rate=float("nan")), rate=0)
    with pytest.raises(UsageError, match=r"unknown kind \(expected red or blue, got green\)"):
        check_choices(Settings(kind="green"), kind=("red", "blue"))
