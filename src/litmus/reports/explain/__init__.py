"""Reports of an explanation: pure functions from one result to text, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from litmus.reports.explain.content import ExplainContext
from litmus.reports.explain.html import explain_html
from litmus.reports.explain.json import explain_json, explain_schema
from litmus.reports.explain.text import explain_text
from litmus.scanning.explanation import Explanation

__all__ = ["EXPLAIN_REPORTS", "ExplainContext", "explain_schema"]

EXPLAIN_REPORTS: Final[Mapping[str, Callable[[Explanation, ExplainContext], str]]] = {
    "text": explain_text,
    "json": explain_json,
    "html": explain_html,
}
