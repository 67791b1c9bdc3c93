"""Reports: pure functions from results to text.

A new report is one file and one line in its dict literal, `EVALUATION_REPORTS` or `SCAN_REPORTS`.
"""
