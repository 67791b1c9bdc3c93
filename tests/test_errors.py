from __future__ import annotations

import pytest

from litmus import errors
from litmus.errors import LitmusError, ModelError, UnsupportedModelError


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "too few classes"),
        ({"where": "DIR"}, "DIR: too few classes"),
        ({"expected": 2}, "too few classes (expected 2)"),
        ({"got": 0}, "too few classes (got 0)"),
        (
            {"expected": "two", "got": ["a"], "where": "DIR"},
            "DIR: too few classes (expected two, got ['a'])",
        ),
    ],
)
def test_message_says_what_expected_got_and_where(details: dict[str, object], text: str) -> None:
    error = LitmusError("too few classes", **details)
    assert str(error) == text
    assert error.what == "too few classes"
    assert {k: getattr(error, k) for k in details} == details


def test_every_error_is_one_kind_and_in_the_tree_of_the_docstring() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), LitmusError)
        assert name in errors.__doc__


def test_an_unsupported_model_is_a_model_error() -> None:
    assert issubclass(UnsupportedModelError, ModelError)
