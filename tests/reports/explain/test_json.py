from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from litmus.reports.explain import EXPLAIN_REPORTS, explain_schema
from litmus.scanning import Sandbox
from litmus.scanning.explanation import Explanation
from tests.reports.explain.cases import context, explanation, hostile

SCHEMA = json.loads(explain_schema())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
LANDLOCK = ("landlock", "not compiled in")


def report(found: Explanation, **options: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(EXPLAIN_REPORTS["json"](found, context(**options)))
    return content


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "found",
    [
        explanation(),
        explanation(backdoored=False, left_out=("class 3: no time",)),
        explanation(pair=None),
        explanation(triggers=()),
        explanation(sandbox=Sandbox(landlock=0, seccomp=True, refused=(LANDLOCK,))),
        hostile(),
    ],
    ids=["whole", "clean", "masks", "pair", "half confined", "hostile"],
)
def test_a_report_follows_the_schema(found: Explanation) -> None:
    VALIDATOR.validate(report(found))
    VALIDATOR.validate(report(found, versions={}, finished=None))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("pair", "patch"), "http://evil.example/p.png"),
        (("pair", "flip_rate"), 1.5),
        (("masks", 0, "norm"), -1.0),
        (("sandbox",), {"held": []}),
        (("likely_target",), "1"),
    ],
)
def test_the_schema_finds_a_mistake(place: tuple[Any, ...], wrong: object) -> None:
    content = report(explanation())
    *way, last = place
    inner: Any = content
    for key in way:
        inner = inner[key]
    inner[last] = wrong
    assert not VALIDATOR.is_valid(content)


def test_each_field_is_described() -> None:
    content = report(explanation(sandbox=Sandbox(landlock=7, seccomp=True)))
    described = SCHEMA["properties"]
    assert set(content) == set(described) == set(SCHEMA["required"])
    assert set(content["settings"]) == set(described["settings"]["properties"])
    flips = set(SCHEMA["$defs"]["flips"]["properties"])
    pair = described["pair"]["oneOf"][1]["properties"]
    assert set(content["pair"]) == set(pair) | flips
    masks = described["masks"]["items"]["properties"]
    assert set(content["masks"][0]) == set(masks) | flips
    assert set(content["images"]) == set(described["images"]["required"])
    assert content["sandbox"] == {"held": ["landlock 7", "seccomp"], "missing": []}


@pytest.mark.parametrize("format_", ["text", "html"])
def test_the_sandbox_is_named_and_what_it_lacks_is_a_warning(format_: str) -> None:
    whole = explanation(sandbox=Sandbox(landlock=7, seccomp=True))
    half = explanation(sandbox=Sandbox(landlock=0, seccomp=True, refused=(LANDLOCK,)))
    told = [" ".join(EXPLAIN_REPORTS[format_](each, context()).split()) for each in (whole, half)]
    assert "landlock 7, seccomp" in told[0]
    assert "incomplete" not in told[0]
    assert "landlock 7" not in told[1]
    assert "The sandbox was incomplete here" in told[1]
    assert "landlock: not compiled in" in told[1]
