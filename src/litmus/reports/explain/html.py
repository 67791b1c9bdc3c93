"""An explanation as one HTML page with its pictures: no script, no file, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from litmus.reports.explain.content import (
    LIMITS,
    ExplainContext,
    class_name,
    flips_text,
    headline,
    images_sentence,
    interval_text,
    mask_sentence,
    pair_sentence,
    warnings,
)
from litmus.reports.scan.content import sandbox_held
from litmus.reports.scan.pictures import png_uri
from litmus.scanning.explanation import Explanation, Flips, Trigger
from litmus.scanning.results import printable

__all__ = ["explain_html"]


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An image as a `data:` URI, and what stands below it."""

    uri: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class _Bar:
    """A class in the chart of norms; `width` is in percent of the longest."""

    name: str
    norm: str
    width: str
    flips: str
    interval: str
    trigger: str
    stands_out: bool


def explain_html(explanation: Explanation, context: ExplainContext) -> str:
    """Return the page: what was found, the pictures, a bar for each class, what it proves."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    css = _css()
    environment = Environment(
        loader=PackageLoader("litmus", "reports/explain"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    likely, pair = explanation.likely_target, explanation.pair
    page = environment.get_template("page.html.j2").render(
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        path=printable(str(explanation.path)),
        headline=headline(explanation),
        tone="suspicious" if pair and pair.works else "inconclusive" if likely is not None else "",
        warnings=warnings(explanation),
        pair_text=pair_sentence(explanation, context.settings),
        patch=pair and _Picture(uri=png_uri(pair.patch), caption="the patch"),
        pair_examples=_examples(explanation, pair.flips) if pair else [],
        mask_text=mask_sentence(explanation),
        mask_pictures=_mask_pictures(explanation),
        mask_examples=_examples(explanation, explanation.smallest.flips)
        if explanation.smallest
        else [],
        bars=_bars(explanation),
        median=_median(explanation),
        images_text=images_sentence(explanation),
        limits=LIMITS,
        notes=[printable(note) for note in explanation.subject.notes],
        facts=_facts(explanation, context),
        finished=context.finished.strftime("%Y-%m-%d %H:%M %Z") if context.finished else "",
        versions=context.versions,
    )
    return page + "\n"


def _css() -> str:
    scan = (resources.files("litmus.reports.scan") / "page.css").read_text(encoding="utf-8")
    own = (resources.files("litmus.reports.explain") / "page.css").read_text(encoding="utf-8")
    return scan + own


def _examples(explanation: Explanation, flips: Flips) -> list[tuple[_Picture, _Picture]]:
    names = [tuple(class_name(explanation, c) for c in pair) for pair in flips.answers]
    return [
        (
            _Picture(uri=png_uri(before), caption=f"clean: {said_before}"),
            _Picture(uri=png_uri(after), caption=f"with the trigger: {said_after}"),
        )
        for before, after, (said_before, said_after) in zip(
            flips.before, flips.after, names, strict=True
        )
    ]


def _mask_pictures(explanation: Explanation) -> list[_Picture]:
    smallest = explanation.smallest
    if smallest is None:
        return []
    return [
        _Picture(uri=png_uri(smallest.mask), caption="mask: where"),
        _Picture(uri=png_uri(smallest.pattern), caption="pattern: what"),
        _Picture(uri=_trigger(smallest), caption="pattern in mask"),
    ]


def _trigger(trigger: Trigger) -> str:
    return png_uri(trigger.mask * trigger.pattern)


def _bars(explanation: Explanation) -> list[_Bar]:
    ordered: Sequence[Trigger] = sorted(explanation.triggers, key=lambda each: each.norm)
    out = explanation.standing_out
    return [
        _Bar(
            name=class_name(explanation, each.target_class),
            norm=f"{each.norm:.1f}",
            width=f"{100 * each.norm / max(ordered[-1].norm, 1e-9):.2f}",
            flips=flips_text(each.flips),
            interval=interval_text(each.flips),
            trigger=_trigger(each),
            stands_out=out is not None and each.target_class == out.target_class,
        )
        for each in ordered
    ]


def _median(explanation: Explanation) -> str:
    """Where the median lies, in percent of the longest bar."""
    if not explanation.triggers:
        return "0"
    norms = explanation.norms
    return f"{100 * float(np.median(norms)) / max(float(norms.max()), 1e-9):.2f}"


def _facts(explanation: Explanation, context: ExplainContext) -> dict[str, str]:
    subject, settings = explanation.subject, context.settings
    return {
        "SHA-256 of the model": subject.sha256,
        **{f"SHA-256 of {printable(n)}": digest for n, digest in subject.external_sha256},
        "input": str(subject.input_spec),
        "steps for each mask": str(settings.steps),
        "patch": f"{settings.patch_size}x{settings.patch_size}, {settings.place}",
        "seed": str(settings.seed),
        "time": f"{explanation.seconds:.1f} s",
        **({"sandbox": held} if (held := sandbox_held([explanation.sandbox])) else {}),
    }
