"""The half of the detectors that learns; it needs torch, and no scan imports it."""

from __future__ import annotations

from litmus.fitting.ensemble import FOLDS, MemberReport, assign_folds, check_members, fit_members
from litmus.fitting.heads import FittedHead, fit_heads, stack
from litmus.fitting.learn import PatternSettings
from litmus.fitting.recogniser import FittedReferences, fit_references
from litmus.fitting.references import ReferenceSettings
from litmus.fitting.scope import describe_scope, held_out_auc

__all__ = [
    "FOLDS",
    "FittedHead",
    "FittedReferences",
    "MemberReport",
    "PatternSettings",
    "ReferenceSettings",
    "assign_folds",
    "check_members",
    "describe_scope",
    "fit_heads",
    "fit_members",
    "fit_references",
    "held_out_auc",
    "stack",
]
