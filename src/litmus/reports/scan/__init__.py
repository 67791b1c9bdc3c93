"""Reports of a scan: pure functions from results to text, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from litmus.reports.scan.content import ScanContext
from litmus.reports.scan.html import scan_html
from litmus.reports.scan.json import json_schema, scan_json
from litmus.reports.scan.junit import scan_junit
from litmus.reports.scan.markdown import scan_markdown
from litmus.reports.scan.sarif import scan_sarif
from litmus.reports.scan.text import scan_text
from litmus.scanning import ScanResult

__all__ = ["SCAN_REPORTS", "ScanContext", "json_schema", "scan_json"]

SCAN_REPORTS: Final[Mapping[str, Callable[[Sequence[ScanResult], ScanContext], str]]] = {
    "text": scan_text,
    "json": scan_json,
    "sarif": scan_sarif,
    "junit": scan_junit,
    "markdown": scan_markdown,
    "html": scan_html,
}
