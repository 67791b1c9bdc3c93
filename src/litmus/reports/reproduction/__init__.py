"""The paper's experiments as JSON, Markdown and SVG: pure functions from a result to files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from litmus.reports.reproduction.detection import figure5_files, table1_files
from litmus.reports.reproduction.pictures import figure1_files, figure2_files, figure3_files
from litmus.reports.reproduction.ratios import figure4_files
from litmus.reports.reproduction.studies import ablations_files, intuition_files, timing_files

__all__ = ["REPRODUCTION_REPORTS"]

REPRODUCTION_REPORTS: Final[dict[str, Callable[[Any], dict[str, str]]]] = {
    "table1": table1_files,
    "figure1": figure1_files,
    "figure2": figure2_files,
    "figure3": figure3_files,
    "figure4": figure4_files,
    "figure5": figure5_files,
    "timing": timing_files,
    "ablations": ablations_files,
    "intuition": intuition_files,
}
"""Contents of files by name, for each experiment's result."""
