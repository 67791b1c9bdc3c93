from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from litmus.detectors.evidence import FORMS
from litmus.reports.scan.html import scan_html
from litmus.scanning import ScanResult, Scored
from tests.reports.scan.cases import (
    accepting,
    candidates,
    context,
    evidence,
    hostile,
    of_every_kind,
    scored,
    thorough,
    with_evidence,
)

# Everything on the page is made of these, without which nothing runs and nothing is loaded.
TAGS = """
html head meta title style body header main footer section details summary h1 h2 h3 p ul li dl div
dt dd span strong b a img table caption thead tbody tr th td figure figcaption svg line rect text
"""
ATTRIBUTES = """
lang charset http-equiv content name class id href scope colspan title aria-label aria-labelledby
role open data-label src alt x x1 x2 y y1 y2 dx width height fill text-anchor
"""


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize(
    "results", [of_every_kind(), hostile(), []], ids=["every", "hostile", "no"]
)
def test_the_page_is_inert(results: list[ScanResult]) -> None:
    page = Page(scan_html(results, context()))
    assert {tag for tag, _ in page.elements} <= set(TAGS.split())
    assert {name for _, attributes in page.elements for name in attributes} <= set(
        ATTRIBUTES.split()
    )
    for tag, attributes in page.elements:
        if tag == "img":
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
        if tag == "a":
            assert re.fullmatch(r"#[a-z0-9-]+", attributes["href"] or "")


def test_the_policy_forbids_all_but_this_style() -> None:
    text = scan_html(of_every_kind(), context())
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [
        attributes["content"]
        for tag, attributes in Page(text).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "@import" not in style
    assert set(re.findall(r"url\(\"(.{5})", style)) == {"data:"}


def test_the_page_tells_all_about_a_model() -> None:
    result = scored("deep/bad.onnx", 9.0)
    page = Page(scan_html([result], context()))
    for said in (
        "The model is suspicious", "None of the 99 clean models", "p ≤ 0.05", "0.0100", "+9.10",
        "this model +9.10", "so p = 1 / (99 + 1)", "deep/bad.onnx", "assumed: scale 1",
        str(result.model_sha256), result.detector_sha256, "litmus 9.9.9, onnxruntime 1.2.3",
        "2026-03-04 05:06 UTC", "n = 99 clean models", "does not mean that there is no backdoor",
    ):  # fmt: skip
        assert said in page.text
    classes = [attributes.get("class") or "" for _, attributes in page.elements]
    # Each of the 6 patterns above the heat map and among the detector's patterns.
    for i in range(6):
        assert classes.count(f"pic d0-{i}") == 2
    cells = [a for tag, a in page.elements if tag == "td" and (a.get("class") or "")[0] == "h"]
    assert len(cells) == 6 * 4


def test_what_was_found_is_shown_on_images_before_and_after() -> None:
    classes = ("cat", "dog", "1st", "3")
    result = with_evidence(scored("m.onnx", 9.0, classes=classes), evidence())
    page = Page(scan_html([result], context()))
    pictures = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    pair = ["An image without the trigger", "The same image with it"]
    assert pictures == ["The trigger", *pair, *pair, *pair]
    for said in (
        "A 2x2 patch at the bottom right turns 98% of the images of class 1 (dog) to class 2 (1st)",
        "class 1 (dog) → class 2 (1st)", "class 1 (dog) → class 0 (cat)",
        "sought and then judged on reference images; 39 of 40 that it was not sought on",
        "at least half of the images of these as well: class 0 (cat).",
        "A patch of 1x1 pixels leads to the same class.", "are found in clean models, too",
    ):  # fmt: skip
        assert said in page.text
    assert "The trigger that was found" not in Page(scan_html(of_every_kind(), context())).text


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_trigger_has_a_picture(form: str) -> None:
    found = evidence(form=form, source_class=None, sources=(), typical=None, smallest=0, size=0)
    page = Page(scan_html([with_evidence(scored("m.onnx", 9.0), found)], context()))
    assert sum(tag == "img" for tag, _ in page.elements) == 7
    assert "of the images of all classes to class 2" in page.text
    assert "no other class" not in page.text


def test_an_inconclusive_model_is_told_why_before_its_numbers() -> None:
    results, known = thorough()
    text = Page(scan_html(results[2:], context(known))).text
    why = "The model is not for these classes (dog, cat, ...), or fed otherwise. No verdict: "
    assert text.count("is not for these classes") == 1
    assert text.index(why) < text.index("p-value") < text.index("9 of 10 reference images")
    assert "calibrated on with ulp, last_layer n = 59 clean models" in text
    assert "n = 39" not in text  # that of all parts, which judged nothing


def test_findings_come_first_and_the_others_are_closed() -> None:
    text = scan_html(of_every_kind(), context())
    page = Page(text)
    order = re.findall(r"models/(\w+)\.", text[text.index("<tbody>") : text.index("</tbody>")])
    assert order == ["bad", "broken", "odd", "layer", "clean", "old"]
    opened = ["open" in attributes for tag, attributes in page.elements if tag == "details"]
    assert opened == [True, True, False, False]
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert len(links) == 4
    assert all(link and link[1:] in targets for link in links)


def test_a_detector_without_patterns_has_no_heat_map() -> None:
    page = Page(scan_html(of_every_kind()[3:4], context()))
    assert "litmus patterns" not in page.text
    assert "No evidence of a backdoor found" in page.text


def test_what_is_accepted_does_not_colour_the_page() -> None:
    results = of_every_kind()[:2]
    text = scan_html(results, context(baseline=accepting(results)))
    assert '<header class="top plain">' in text
    assert "suspicious (accepted)" in Page(text).text
    assert '<header class="top suspicious">' in scan_html(results, context())


def test_of_very_many_files_the_most_suspicious_are_told_in_full() -> None:
    known = candidates()
    results: list[ScanResult] = [scored(f"{i}.onnx", i / 10, known) for i in range(-30, 30)]
    text = scan_html(results, context(known))
    page = Page(text)
    assert sum(tag == "details" for tag, _ in page.elements) == 50
    assert "10 more are in the table alone" in page.text
    by_p = sorted((r for r in results if isinstance(r, Scored)), key=lambda r: r.p_value)
    assert f">{by_p[0].path}</a>" in text
    assert f">{by_p[-1].path}</a>" not in text
    assert str(by_p[-1].path) in page.text
