"""What a shell offers for the value of an option; typer asks for it only while completing."""

from __future__ import annotations

__all__ = ["detector_names", "effort_names", "fail_on_names", "report_names"]


def detector_names(incomplete: str) -> list[str]:
    """Return the names of bundled detectors."""
    from litmus.detectors import bundled_detectors

    return [name for name in bundled_detectors() if name.startswith(incomplete)]


def report_names(incomplete: str) -> list[str]:
    """Return the formats of a scan's report."""
    from litmus.reports.scan import SCAN_REPORTS

    return [name for name in SCAN_REPORTS if name.startswith(incomplete)]


def fail_on_names(incomplete: str) -> list[str]:
    """Return the verdicts from which on something is found."""
    from litmus.scanning import FAIL_ON

    return [name for name in FAIL_ON if name.startswith(incomplete)]


def effort_names(incomplete: str) -> list[str]:
    """Return the efforts of a scan."""
    from litmus.detectors.effort import EFFORTS

    return [name for name in EFFORTS if name.startswith(incomplete)]
