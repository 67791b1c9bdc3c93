from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from litmus.reports.explain import EXPLAIN_REPORTS
from litmus.reports.explain.content import LIMITS, headline
from litmus.scanning.explaining import ExplainSettings
from litmus.scanning.explanation import Explanation
from tests.reports.explain.cases import context, explanation, flips, hostile
from tests.reports.scan.cases import SIGNS

PAIR_SPEC, PAIR = explanation().subject.input_spec, explanation().pair
assert PAIR is not None
HEADLINES = {
    "both": (explanation(), "Both searches point to class 1"),
    "masks": (explanation(pair=None), "Class 1 is reached most easily"),
    "pair": (explanation(triggers=()), "A small patch leads class 3 to class 1"),
    "few": (
        explanation(backdoored=False, pair=replace(PAIR, flips=flips(PAIR_SPEC, 20, 20))),
        "A small patch turns all images of one class; they are too few to be sure",
    ),
    "none": (explanation(backdoored=False), "No class stands out"),
}


@pytest.mark.parametrize("case", HEADLINES)
def test_the_headline_says_which_search_points_where(case: str) -> None:
    found, expected = HEADLINES[case]
    assert headline(found) == expected
    # Every report can be had of what is incomplete.
    for render in EXPLAIN_REPORTS.values():
        assert expected in render(found, context())


def test_classes_are_called_as_the_model_counts_them() -> None:
    found = explanation()
    order = (5, 7, 0, 2, 1, 3, 4, 6, 8, 9)
    named = replace(
        found,
        subject=replace(found.subject, outputs=order),
        classes=tuple("abcdefghij"),
    )
    assert headline(named) == "Both searches point to class 7 (b)"
    content = json.loads(EXPLAIN_REPORTS["json"](named, context()))
    assert (content["likely_target"], content["pair"]["source_class"]) == (7, 2)
    assert content["classes"]["7"] == "b"
    assert [each["target_class"] for each in content["masks"]] == list(order)


def test_the_text_has_counts_intervals_and_what_it_does_not_prove() -> None:
    text = EXPLAIN_REPORTS["text"](explanation(), context())
    flat = " ".join(text.split())
    assert "it turns 60 of 60 images (100 %, 95 % interval 94 to 100)" in flat
    assert "needs the smallest mask: 9.5 pixels" in flat
    assert "Optimised on 24 clean images of each class, counted on 60 others" in flat
    assert all(limit in flat.replace("- ", "") for limit in LIMITS)
    rows = [line.split() for line in text.splitlines() if "█" in line]
    norms = [float(row[2]) for row in rows]
    assert norms == sorted(norms)
    assert len(norms) == 10
    many = EXPLAIN_REPORTS["text"](explanation(SIGNS), context())
    assert "31 more classes need larger masks." in many


def test_images_that_do_not_fit_are_warned_of() -> None:
    found = explanation(right=100)
    for name in ("text", "html"):
        report = " ".join(EXPLAIN_REPORTS[name](found, context()).split())
        assert "has only 12 % of the clean images right" in report
        assert "has only" not in EXPLAIN_REPORTS[name](explanation(), context())


def test_the_json_has_pictures_and_settings() -> None:
    settings = ExplainSettings(steps=7, classes=(1, 2))
    content = json.loads(EXPLAIN_REPORTS["json"](explanation(), context(settings=settings)))
    assert content["settings"]["steps"] == 7
    assert content["settings"]["classes"] == [1, 2]
    pictures = [content["pair"]["patch"], *(m[key] for m in content["masks"] for key in ("mask",))]
    for uri in pictures:
        assert base64.b64decode(uri.partition(",")[2]).startswith(b"\x89PNG")
    first = content["masks"][0]
    assert first["flip_rate_low"] < first["flip_rate"] == 490 / 540 < first["flip_rate_high"]
    assert content["anomaly_index"] == explanation().anomaly_index


@pytest.mark.parametrize("name", EXPLAIN_REPORTS)
def test_names_that_an_attacker_chose_are_text(name: str) -> None:
    report = EXPLAIN_REPORTS[name](hostile(), context())
    report.encode()
    if name == "html":
        assert "<script" not in report
        assert "<img src=x" not in report
    if name == "json":
        assert isinstance(json.loads(report), dict)
    else:
        assert "\x1b" not in report
        assert "\u202e" not in report


def test_reports_are_pure() -> None:
    for render in EXPLAIN_REPORTS.values():
        assert render(explanation(), context()) == render(explanation(), context())
    assert isinstance(explanation(), Explanation)
