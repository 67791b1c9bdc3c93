"""The half of the detectors that learns; it needs torch, and no scan imports it."""

from __future__ import annotations

from litmus.fitting.ensemble import (
    FOLDS,
    MemberReport,
    assign_folds,
    check_members,
    draw_models,
    fit_members,
    seen_models,
)
from litmus.fitting.heads import FittedHead, fit_heads, stack
from litmus.fitting.population import Population
from litmus.fitting.ranks import Ranks
from litmus.fitting.recogniser import FittedReferences, fit_references
from litmus.fitting.references import ReferenceSettings, learn_references, reference_folds
from litmus.fitting.scope import describe_scope, held_out_auc
from litmus.fitting.settings import PatternSettings

__all__ = [
    "FOLDS",
    "FittedHead",
    "FittedReferences",
    "MemberReport",
    "PatternSettings",
    "Population",
    "Ranks",
    "ReferenceSettings",
    "assign_folds",
    "check_members",
    "describe_scope",
    "draw_models",
    "fit_heads",
    "fit_members",
    "fit_references",
    "held_out_auc",
    "learn_references",
    "reference_folds",
    "seen_models",
    "stack",
]
