"""The page of an explanation in a real browser; see `tests.reports.scan.test_page`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from litmus.reports.explain.html import explain_html
from tests.reports.explain.cases import context, explanation, hostile
from tests.reports.scan.test_page import SCHEMES, WIDTHS, Opened, browser, screenshots

__all__ = ["browser", "screenshots"]  # fixtures

PAGES = {"backdoor": explanation(), "none": explanation(backdoored=False), "hostile": hostile()}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_can_be_read(
    browser: Any,
    screenshots: Path,
    tmp_path: Path,
    name: str,
    width: str,
    scheme: str,
) -> None:
    path = tmp_path / "page.html"
    path.write_text(explain_html(PAGES[name], context()), encoding="utf-8")
    with Opened(browser, path, scheme=scheme, width=WIDTHS[width]) as opened:
        picture = screenshots / f"explain-{name}-{scheme}-{width}.png"
        opened.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000
        opened.check()
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [path.as_uri()]
        loaded = "[...document.images].map(e => e.complete && e.naturalWidth > 0)"
        assert set(opened.page.evaluate(loaded)) == {True}
        paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
