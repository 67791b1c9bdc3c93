"""An explanation for a terminal."""

from __future__ import annotations

import textwrap
from typing import Final

from litmus.reports.console import render_table
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
from litmus.scanning.explanation import Explanation
from litmus.scanning.results import printable

__all__ = ["explain_text"]

_SHOWN: Final = 12
_BAR: Final = 24  # columns
_WIDTH: Final = 100


def explain_text(explanation: Explanation, context: ExplainContext) -> str:
    """Return the report for a terminal: what was found, each class's mask, what it proves."""
    width = min(context.width, _WIDTH)
    paragraphs = [
        f"{printable(str(explanation.path))}: {headline(explanation)}",
        *warnings(explanation),
        pair_sentence(explanation, context.settings),
        mask_sentence(explanation),
    ]
    parts = [_filled(text, width) for text in paragraphs if text]
    parts.append(_table(explanation, context))
    parts += [_filled(images_sentence(explanation), width)] if explanation.total else []
    parts += [_filled(printable(note), width) for note in explanation.subject.notes]
    if held := sandbox_held([explanation.sandbox]):
        parts.append(f"sandbox: {held}\n")
    parts.append("\nWhat this tells, and what it does not:\n")
    parts += [textwrap.fill(text, width, initial_indent="- ", subsequent_indent="  ") + "\n"
              for text in LIMITS]  # fmt: skip
    return "".join(parts)


def _table(explanation: Explanation, context: ExplainContext) -> str:
    ordered = sorted(explanation.triggers, key=lambda trigger: trigger.norm)
    if not ordered:
        return ""
    longest = max(explanation.norms.max(), 1e-9)
    rows = [
        [
            class_name(explanation, trigger.target_class),
            f"{trigger.norm:.1f}",
            "\N{FULL BLOCK}" * max(1, round(_BAR * trigger.norm / longest)),
            flips_text(trigger.flips),
            interval_text(trigger.flips),
        ]
        for trigger in ordered[:_SHOWN]
    ]
    header = ["to", "mask (pixels)", "", "turns", "images held back"]
    table = render_table(header, rows, width=context.width, colour=context.colour)
    more = len(ordered) - _SHOWN
    return table + (f"{more} more classes need larger masks.\n" if more > 0 else "")


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False) + "\n"
