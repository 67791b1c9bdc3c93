"""The half of the pattern detectors that learns; it needs torch, and no scan imports it."""

from __future__ import annotations

from litmus.fitting.ensemble import FOLDS, MemberReport, fit_members
from litmus.fitting.learn import PatternSettings
from litmus.fitting.scope import describe_scope, held_out_auc

__all__ = [
    "FOLDS",
    "MemberReport",
    "PatternSettings",
    "describe_scope",
    "fit_members",
    "held_out_auc",
]
