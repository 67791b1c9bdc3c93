"""A comparison of variants as JSON, which a later run goes on from, and as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litmus.evaluation import LeaveOut, mean_auc_difference
from litmus.reports.console import render_table
from litmus.reports.evaluation import leave_out_content, markdown_table

__all__ = ["VARIANT_REPORTS", "variant_record", "variants_json"]

Records = Sequence[Mapping[str, Any]]


def variant_record(result: LeaveOut, **facts: Any) -> dict[str, Any]:
    """Return what is kept of one variant: facts about it, `rows`, `summary` and `models`."""
    return leave_out_content(result, facts)


def variants_json(records: Records, provenance: Mapping[str, Any]) -> str:
    """Return provenance, all variants' rows together, and the records themselves."""
    content = {
        **provenance,
        "rows": [
            {"variant": record["variant"], **row} for record in records for row in record["rows"]
        ],
        "differences": _differences(records),
        "variants": list(records),
    }
    return json.dumps(content, indent=1) + "\n"


def variants_text(records: Records, provenance: Mapping[str, Any]) -> str:
    """Return the two tables for a terminal."""
    tables = (_summaries(records), _by_group(records))
    return "\n".join(render_table(header, rows) for header, *rows in tables)


def variants_markdown(records: Records, provenance: Mapping[str, Any]) -> str:
    """Return the two tables in Markdown, with the command."""
    tables = (_summaries(records), _by_group(records))
    text = "\n".join(markdown_table(table) for table in tables)
    return f"{text}\n`{provenance['command']}`\n"


VARIANT_REPORTS: Final[Mapping[str, Callable[[Records, Mapping[str, Any]], str]]] = {
    "text": variants_text,
    "json": variants_json,
    "markdown": variants_markdown,
}


def _differences(records: Records) -> list[dict[str, Any]]:
    """Each variant's mean AUC minus that of the first one."""
    first, *others = records
    return [
        {
            "variant": record["variant"],
            "minus": first["variant"],
            **vars(mean_auc_difference(record["models"], first["models"])),
        }
        for record in others
    ]


def _summaries(records: Records) -> list[list[str]]:
    header = [
        "variant", "detector", "settings", "mean AUC (95 %)", "minus the first (95 %)",
        "flagged clean / backdoored", "inconclusive clean / backdoored", "CPU-s a fit",
    ]  # fmt: skip
    differences = {entry["variant"]: entry for entry in _differences(records)}
    lines = [header]
    for record in records:
        s, d = record["summary"], differences.get(record["variant"])
        interval = s["mean_auc_interval"]
        lines.append(
            [
                record["variant"],
                record["detector"],
                ", ".join(f"{key}={value}" for key, value in record["settings"].items()) or "-",
                f"{s['mean_auc']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})",
                f"{d['difference']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" if d else "-",
                f"{s['false_positive_rate']:.3f} / {s['true_positive_rate']:.3f}",
                f"{s['inconclusive_clean']:.3f} / {s['inconclusive_backdoored']:.3f}",
                f"{record['cpu_seconds'] / len(record['rows']):.0f}",
            ]
        )
    return lines


def _by_group(records: Records) -> list[list[str]]:
    """AUC of every variant on every group."""
    rows = records[0]["rows"]
    header = [f"left out: {rows[0]['leave_out']}", "models", *(r["variant"] for r in records)]
    lines = [header]
    for place, row in enumerate(rows):
        sizes = f"{row['n_clean']} + {row['n_backdoored']}"
        aucs = [f"{record['rows'][place]['auc']:.3f}" for record in records]
        lines.append([row["group"], sizes, *aucs])
    return lines
