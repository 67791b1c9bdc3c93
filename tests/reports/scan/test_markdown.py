from __future__ import annotations

import re

import pytest

from litmus.reports.scan.markdown import _literal, scan_markdown
from tests.reports.scan.cases import HOSTILE, accepting, context, hostile, of_every_kind


def test_the_page_tells_findings_and_scope() -> None:
    page = scan_markdown(of_every_kind(), context())
    assert "**1 of 4 models is suspicious.**" in page
    assert "| `models/bad.onnx` | **suspicious** | 0.0100 | 0.0200 |" in page
    assert "### inconclusive: `models/odd.onnx`" in page
    assert "- failed: `models/broken.onnx`: not an ONNX file, or a damaged one" in page
    assert "n = 99 clean models, smallest p 0.0100" in page
    known = scan_markdown(of_every_kind(), context(baseline=accepting(of_every_kind())))
    assert "| suspicious (accepted) |" in known


def without_code(line: str) -> str:
    """A line of Markdown less its code spans (CommonMark 6.1)."""
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", line)


def test_outside_code_nothing_hostile_is_left() -> None:
    page = scan_markdown(hostile(), context())
    plain = "\n".join(without_code(line) for line in page.split("\n"))
    for sign in ("evil", "someone", "alert", "onerror", "{{", "`", "<!--"):
        assert sign not in plain
    columns = {line.count("|") for line in page.split("\n") if line.startswith("|")}
    assert columns == {7}


@pytest.mark.parametrize("text", [*HOSTILE, "`", "``a", " a ", "a`", "www.evil.example", "a_b"])
def test_code_gives_a_text_back(text: str) -> None:
    shown = _literal(text, always=True)
    (fence,) = re.findall(r"^`+", shown) or [""]
    assert fence
    assert shown.endswith(fence)
    inside = shown[len(fence) : -len(fence)]
    assert fence not in re.findall(r"`+", inside)
    if inside[0] == inside[-1] == " ":
        inside = inside[1:-1]
    assert inside == "".join(c if c.isprintable() else "?" for c in text)


@pytest.mark.parametrize("text", ["assumed: scale 1, mean 0", "3x6x5 -> 4 classes", "n = 9 (p)"])
def test_plain_words_stay_plain(text: str) -> None:
    assert _literal(text) == text
