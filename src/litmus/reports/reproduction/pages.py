"""What the pages of all experiments share: the JSON's frame, first lines, tables of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from litmus.evaluation import Comparison, DetectionRow
from litmus.reports.evaluation import detection_table
from litmus.reproduction import Result

__all__ = [
    "as_json",
    "comparison_json",
    "comparison_lines",
    "left_out",
    "opening",
    "page",
    "plain_rows",
    "with_interval",
]


def as_json(result: Result, **content: Any) -> str:
    """Return the provenance and then `content`, as every file of `results/` has it."""
    return json.dumps({**result.provenance, **content}, indent=1) + "\n"


def page(*sections: str) -> str:
    """Return a Markdown page; empty sections are left out."""
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def opening(result: Result, title: str) -> str:
    """Return the title, the command, and what it ran on."""
    p = result.provenance
    seeds = f"seeds {', '.join(map(str, p['seeds']))}; " if p["seeds"] else ""
    scales = ", ".join(f"{name} {scale:g}" for name, scale in p["scale"].items())
    return (
        f"# {title}\n\n`{p['command']}` ({seeds}scale {scales}; Litmus "
        f"{p['litmus_version']}, torch {p['torch_version']}; {p['machine']['cpu']}, "
        f"{p['machine']['cores']} cores)"
    )


def left_out(result: Result) -> str:
    """Return a line for each recipe that could not be had."""
    reasons: Mapping[str, str] = result.provenance["left_out"]
    return "\n".join(f"- {name} is left out: {reason}" for name, reason in reasons.items())


def with_interval(row: DetectionRow) -> str:
    """Return `0.952 (0.921 to 0.976)`."""
    return f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})"


def plain_rows(rows: Sequence[DetectionRow], *, groups: bool = False) -> list[list[str]]:
    """Return the detection table without the columns that are empty here.

    A single member is not calibrated across folds, so there are no nominal rates.
    """
    table = detection_table(rows)
    names = {"flagged clean / backdoored"} | (set() if groups else {"group"})
    drop = {table[0].index(name) for name in names}
    return [[cell for i, cell in enumerate(line) if i not in drop] for line in table]


def comparison_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return paired comparisons as plain dictionaries."""
    return [{"first": c.first, "second": c.second, **vars(c.difference)} for c in comparisons]


def comparison_lines(comparisons: Sequence[Comparison]) -> str:
    """Return paired comparisons as a list."""
    return "\n".join(
        f"- AUC of {c.first} minus {c.second}: {c.difference.difference:+.3f} "
        f"({c.difference.low:+.3f} to {c.difference.high:+.3f}), "
        f"paired bootstrap p = {c.difference.p_value:.3g}"
        for c in comparisons
    )
