"""An evaluation as text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litmus.errors import UsageError
from litmus.evaluation import (
    ALL,
    BreakdownRow,
    Comparison,
    DetectionRow,
    Evaluation,
    LeaveOut,
    ModelJudgement,
)
from litmus.reports.console import render_table

__all__ = [
    "EVALUATION_REPORTS",
    "LEAVE_OUT_REPORTS",
    "breakdown_svg",
    "detection_table",
    "judged_model",
    "leave_out_content",
    "markdown_table",
]

SCHEMA_VERSION: Final = 1


def evaluation_text(evaluation: Evaluation) -> str:
    """Return tables for a terminal."""
    header, *rows = detection_table(evaluation.rows)
    text = render_table(header, rows) + _breakdown_text(evaluation.breakdown)
    if evaluation.comparisons:
        text += "\n" + "\n".join(_sentence(c) for c in evaluation.comparisons) + "\n"
    return text


def evaluation_markdown(evaluation: Evaluation) -> str:
    """Return Markdown tables."""
    text = markdown_table(detection_table(evaluation.rows))
    text += _breakdown_markdown(evaluation.breakdown)
    return text + "".join(f"\n{_sentence(c)}\n" for c in evaluation.comparisons)


def evaluation_json(evaluation: Evaluation) -> str:
    """Return rows, comparisons and every model's score as JSON."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "rows": [row.to_json() for row in evaluation.rows],
        "breakdown": [row.to_json() for row in evaluation.breakdown],
        "comparisons": [
            {"first": c.first, "second": c.second, **vars(c.difference)}
            for c in evaluation.comparisons
        ],
        "models": [
            {"detector": label, **judged_model(m)}
            for label, models in evaluation.models.items()
            for m in models
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def judged_model(model: ModelJudgement) -> dict[str, Any]:
    """Return what a detector said of one model, as results have it."""
    return {
        "id": model.entry.id,
        "treatment": model.entry.spec.treatment,
        "trigger": model.entry.trigger_id,
        "score": model.judgement.score,
        "p_value": model.judgement.p_value,
        "verdict": model.judgement.verdict,
    }


def leave_out_text(result: LeaveOut, provenance: Mapping[str, Any]) -> str:
    """Return a table of the groups and the summary, for a terminal."""
    header, *rows = leave_out_table(result)
    return render_table(header, rows) + "\n" + _summary(result) + _breakdown_text(result.breakdown)


def leave_out_markdown(result: LeaveOut, provenance: Mapping[str, Any]) -> str:
    """Return the same in Markdown, with the command."""
    return (
        f"{markdown_table(leave_out_table(result))}\n{_summary(result)}"
        f"{_breakdown_markdown(result.breakdown)}\n`{provenance['command']}`\n"
    )


def leave_out_json(result: LeaveOut, provenance: Mapping[str, Any]) -> str:
    """Return `leave_out_content` as JSON."""
    return json.dumps(leave_out_content(result, provenance), indent=1) + "\n"


def leave_out_content(result: LeaveOut, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return provenance, rows, summary and every model's score as plain values."""
    summary = {name: value for name, value in vars(result).items() if name not in _LONG}
    return {
        **provenance,
        "rows": [row.to_json() for row in result.rows],
        "breakdown": [row.to_json() for row in result.breakdown],
        "summary": {**summary, "mean_auc_interval": vars(result.mean_auc_interval)},
        "models": [
            {"group": group, **judged_model(m)}
            for group, models in result.models.items()
            for m in models
        ],
    }


_LONG: Final = {"rows", "breakdown", "models"}

LEAVE_OUT_REPORTS: Final[Mapping[str, Callable[[LeaveOut, Mapping[str, Any]], str]]] = {
    "text": leave_out_text,
    "json": leave_out_json,
    "markdown": leave_out_markdown,
}


def leave_out_table(result: LeaveOut) -> list[list[str]]:
    """Return a header and one line of texts for each group that was left out."""
    header = [
        "detector", f"left out: {result.by}", "AUC (95 %)", "TPR at 5 %",
        "flagged clean / backdoored", "inconclusive clean / backdoored", "models",
    ]  # fmt: skip
    return [header, *(_left_out(row) for row in result.rows)]


def _left_out(row: DetectionRow) -> list[str]:
    return [
        row.detector,
        row.group,
        f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})",
        _or_dash(row.tpr_at_fpr_5),
        f"{_or_dash(row.flagged_clean)} / {_or_dash(row.flagged_backdoored)}",
        f"{_or_dash(row.inconclusive_clean)} / {_or_dash(row.inconclusive_backdoored)}",
        _sizes(row),
    ]


def _sizes(row: DetectionRow) -> str:
    return f"{row.n_clean} + {row.n_backdoored}"


def _summary(result: LeaveOut) -> str:
    mean, false = result.mean_auc_interval, result.false_positive_interval
    return (
        f"Mean AUC {result.mean_auc:.3f} ({mean.low:.3f} to {mean.high:.3f}, {mean.method}). "
        f"At a nominal false-positive rate of {result.fpr:g}: measured "
        f"{result.false_positive_rate:.3f} ({false[0]:.3f} to {false[1]:.3f}), true-positive rate "
        f"{result.true_positive_rate:.3f}; inconclusive {result.inconclusive_clean:.3f} of clean, "
        f"{result.inconclusive_backdoored:.3f} of backdoored models; calibration error "
        f"{result.calibration_error:.3f}.\n"
    )


EVALUATION_REPORTS: Final[Mapping[str, Callable[[Evaluation], str]]] = {
    "text": evaluation_text,
    "json": evaluation_json,
    "markdown": evaluation_markdown,
}


def detection_table(rows: Sequence[DetectionRow]) -> list[list[str]]:
    """Return a header and one line of texts a row."""
    header = [
        "detector", "M", "group", "against", "AUC (95 %)", "accuracy",
        "TPR at 1 %", "TPR at 5 %", "flagged clean / backdoored", "models", "triggers",
    ]  # fmt: skip
    return [header, *(_cells(row) for row in rows)]


def breakdown_table(rows: Sequence[BreakdownRow]) -> list[list[str]]:
    """Return a header and one line of texts a row; a property is named in its first line."""
    header = ["detector", "backdoors by", "", "AUC (95 %)", "flagged clean / backdoored",
              "inconclusive clean / backdoored", "models"]  # fmt: skip
    lines = [header]
    before: tuple[str, str] | None = None
    for part in rows:
        line = _left_out(part.row)
        begins = before != (part.row.detector, part.name)
        before = (part.row.detector, part.name)
        lines.append([line[0], part.name if begins else "", part.value, line[2], *line[4:]])
    return lines


def breakdown_svg(rows: Sequence[BreakdownRow], title: str) -> str:
    """Return the same as a figure; raises UsageError where there are no rows."""
    from litmus.figures import figure_breakdown

    if not rows:
        raise UsageError("there is no breakdown: all backdoors are alike", where="--breakdown")
    overall = {part.row.detector: part.row.auc for part in rows if part.name == ALL}
    parts: dict[str, dict[str, list[tuple[str, float, float, float, str]]]] = {}
    for part in rows:
        if part.name != ALL:
            row = part.row
            dot = (part.value, row.auc, row.auc_low, row.auc_high, _sizes(row))
            parts.setdefault(part.name, {}).setdefault(row.detector, []).append(dot)
    return figure_breakdown(parts, overall, title)


def _breakdown_text(rows: Sequence[BreakdownRow]) -> str:
    if not rows:
        return ""
    header, *lines = breakdown_table(rows)
    return "\n" + render_table(header, lines)


def _breakdown_markdown(rows: Sequence[BreakdownRow]) -> str:
    return "\n" + markdown_table(breakdown_table(rows)) if rows else ""


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """Return a header and rows as a Markdown table."""
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: DetectionRow) -> list[str]:
    return [
        row.detector,
        _or_dash(row.num_patterns, "d"),
        row.group,
        row.against,
        f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})",
        _or_dash(row.accuracy),
        _or_dash(row.tpr_at_fpr_1),
        _or_dash(row.tpr_at_fpr_5),
        f"{_or_dash(row.flagged_clean)} / {_or_dash(row.flagged_backdoored)}",
        _sizes(row),
        str(row.n_triggers),
    ]


def _or_dash(value: Any, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _sentence(comparison: Comparison) -> str:
    d = comparison.difference
    return (
        f"AUC of {comparison.first} minus {comparison.second}: {d.difference:+.3f} "
        f"({d.low:+.3f} to {d.high:+.3f}), paired bootstrap p = {d.p_value:.3g}"
    )
