"""The HTML report in a real browser: screenshots, overflow, contrast, console.

LITMUS_SCREENSHOTS names a folder that keeps the screenshots.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from litmus.detectors import load_detector
from litmus.reports.scan.html import scan_html
from litmus.scanning import Failed, ScanResult, Skipped
from tests.formats.onnx_models import detector
from tests.reports.scan.cases import (
    COLOUR,
    HOSTILE,
    SIGNS,
    candidates,
    context,
    evidence,
    of_every_kind,
    scored,
    thorough,
    with_evidence,
)

WIDTHS: Final = {"wide": 1280, "narrow": 360}
SCHEMES: Final = ("light", "dark")
PATIENCE: Final = 120_000  # milliseconds, of a machine that has other things to do

# Each text that is seen, with its colour's contrast to what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS: Final = """() => {
  const parse = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return parts.length > 3 ? parts : [...parts, 1];
  };
  const luminance = colour => {
    const linear = colour.slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
      if (colour[3] > 0) throw new Error("a translucent background: " + e.outerHTML);
    }
    throw new Error("no background");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color);
    const [high, low] = [luminance(colour), luminance(behind(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    found.push([(high + 0.05) / (low + 0.05), large ? 3 : 4.5, walker.currentNode.data.trim()]);
  }
  return found;
}"""

# What sticks out of the window, and what is cut off without saying so.
OVERFLOWS: Final = """() => {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const e of document.body.querySelectorAll("*")) {
    if (!e.checkVisibility() || e.closest("thead") && getComputedStyle(e.closest("thead")).clipPath !== "none")
      continue;
    const box = e.getBoundingClientRect();
    if (box.width && (box.left < -0.5 || box.right > innerWidth + 0.5))
      found.push(`${e.tagName} ${box.left} to ${box.right}: ${e.textContent.slice(0, 40)}`);
    const cut = getComputedStyle(e).overflowX === "hidden" && e.scrollWidth > e.clientWidth + 1;
    if (cut && !e.title && !e.closest("svg")) found.push(`cut off: ${e.textContent.slice(0, 40)}`);
  }
  return found;
}"""  # noqa: E501


def _chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, that of the system."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright, which drives the browser, is not installed"
    )
    if not (path := _chromium()):
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one model, one of many kinds and names that nobody would choose, and of none."""
    names = tuple(f"sign {i}: no passing of lorries {HOSTILE[0]}" for i in range(43))
    known = candidates(
        {
            "digits": load_detector("digits"),
            "signs": detector(SIGNS, members=5, patterns=10),
            COLOUR: detector(),
        }
    )
    one: list[ScanResult] = [scored("supplier/model.onnx", 12.0, known, name="digits")]
    mixed: list[ScanResult] = [
        scored("supplier/signs.onnx", 40.0, known, name="signs", classes=names),
        scored("odd.onnx", -9.0, known, name="digits", distance=1e6),
        *(scored(f"clean-{i}.onnx", -9.0 - i, known, name="digits") for i in range(3)),
        *(scored(name, 9.0, known, notes=(name,)) for name in HOSTILE),
        *(Failed(path=Path(name), error=name) for name in HOSTILE),
        Skipped(
            path=Path("old.h5"), reason="a Keras file: python -m tf2onnx.convert --keras old.h5"
        ),
    ]
    shape = known.detectors["signs"].input_spec
    many = evidence(shape, source_class=None, sources=tuple(range(43)), target_class=42)
    found: list[ScanResult] = [
        with_evidence(
            scored("supplier/found.onnx", 40.0, known, name="signs", classes=names),
            evidence(shape),
        ),
        with_evidence(scored("many.onnx", 40.0, known, name="signs"), many),
    ]
    results, fused = thorough()
    contents = {
        "thorough": scan_html(results, context(fused)),
        "found": scan_html(found, context(known)),
        "one": scan_html(one, context(known)),
        "mixed": scan_html(mixed, context(known)),
        "nothing": scan_html(mixed[-3:], context(known)),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, content in contents.items():
        (folder / f"{name}.html").write_text(content, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in contents}


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("LITMUS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Opened:
    """A page in the browser, with all that it said and asked for."""

    def __init__(
        self, browser: Any, path: Path, *, scheme: str = "light", width: int = 1280
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def open_all(self) -> None:
        """Open what is closed."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

    def check(self) -> None:
        """Nothing sticks out, and each text can be read."""
        assert self.page.evaluate(OVERFLOWS) == []
        contrasts = self.page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert [found for found in contrasts if found[0] < found[1]] == []

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.close()


@pytest.mark.parametrize("name", ["one", "mixed", "thorough", "found", "nothing"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_can_be_read(
    browser: Any, pages: dict[str, Path], screenshots: Path, name: str, width: str, scheme: str
) -> None:
    path = pages[name]
    with Opened(browser, path, scheme=scheme, width=WIDTHS[width]) as opened:
        picture = screenshots / f"{name}-{scheme}-{width}.png"
        opened.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000
        opened.open_all()
        opened.check()
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [path.as_uri()]
        # The policy let the style through, and the pictures that it holds.
        paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        drawn = "[...document.querySelectorAll('.pic')].map(e => getComputedStyle(e))"
        urls = opened.page.evaluate(f"{drawn}.map(s => s.backgroundImage.slice(0, 14))")
        assert set(urls) == ({'url("data:imag'} if name != "nothing" else set())


def test_the_checks_find_what_is_wrong(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["nothing"], width=360) as opened:
        opened.page.evaluate("document.querySelector('h1').style.color = '#eee'")
        opened.page.evaluate("document.querySelector('main').style.width = '500px'")
        contrasts = opened.page.evaluate(CONTRASTS)
        assert [text for found, least, text in contrasts if found < least] == [
            "No model was scored"
        ]
        assert "the page scrolls sideways" in opened.page.evaluate(OVERFLOWS)


def test_it_can_be_printed(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["mixed"], scheme="dark", width=794) as opened:
        opened.page.emulate_media(media="print", color_scheme="dark")
        opened.check()
        paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"


def test_a_link_opens_what_is_closed(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["mixed"]) as opened:
        closed = opened.page.locator("details:not([open])")
        before = closed.count()
        assert before == 3  # those without evidence
        opened.page.get_by_role("link", name="clean-1.onnx").click()
        assert closed.count() == before - 1


def test_no_script_runs_even_if_one_were_there(browser: Any, tmp_path: Path) -> None:
    page = scan_html(of_every_kind(), context())
    assert "<main>" in page
    forged = tmp_path / "forged.html"
    forged.write_text(page.replace("<main>", "<main><script>alert(1)</script>"), encoding="utf-8")
    with Opened(browser, forged) as opened:
        assert not any(text.startswith("dialog") for text in opened.said)
        assert any("Content Security Policy" in text for text in opened.said)
