"""Pictures: pure functions from arrays to SVG text."""

from __future__ import annotations

from litmus.figures.breakdown import figure_breakdown
from litmus.figures.images import image_grid, labelled_images, patterns_by_member
from litmus.figures.patterns import figure_patterns
from litmus.figures.populations import figure_populations
from litmus.figures.ratios import figure_poison_ratios
from litmus.figures.roc import roc_curves, roc_panels
from litmus.figures.triggers import figure_triggers

__all__ = [
    "figure_breakdown",
    "figure_patterns",
    "figure_poison_ratios",
    "figure_populations",
    "figure_triggers",
    "image_grid",
    "labelled_images",
    "patterns_by_member",
    "roc_curves",
    "roc_panels",
]
