"""An evaluation as text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litmus.evaluation import Comparison, DetectionRow, Evaluation
from litmus.reports.console import render_table

__all__ = ["EVALUATION_REPORTS", "detection_table", "markdown_table"]

SCHEMA_VERSION: Final = 1


def evaluation_text(evaluation: Evaluation) -> str:
    """Return tables for a terminal."""
    header, *rows = detection_table(evaluation.rows)
    text = render_table(header, rows)
    if evaluation.comparisons:
        text += "\n" + "\n".join(_sentence(c) for c in evaluation.comparisons) + "\n"
    return text


def evaluation_markdown(evaluation: Evaluation) -> str:
    """Return Markdown tables."""
    text = markdown_table(detection_table(evaluation.rows))
    return text + "".join(f"\n{_sentence(c)}\n" for c in evaluation.comparisons)


def evaluation_json(evaluation: Evaluation) -> str:
    """Return rows, comparisons and every model's score as JSON."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "rows": [row.to_json() for row in evaluation.rows],
        "comparisons": [
            {"first": c.first, "second": c.second, **vars(c.difference)}
            for c in evaluation.comparisons
        ],
        "models": [
            {
                "detector": label,
                "id": m.entry.id,
                "treatment": m.entry.spec.treatment,
                "trigger": m.entry.trigger_id,
                "score": m.judgement.score,
                "p_value": m.judgement.p_value,
                "verdict": m.judgement.verdict,
            }
            for label, models in evaluation.models.items()
            for m in models
        ],
    }
    return json.dumps(content, indent=1) + "\n"


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
        f"{row.n_clean} + {row.n_backdoored}",
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
