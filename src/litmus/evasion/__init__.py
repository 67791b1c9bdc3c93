"""The attacker who knows the detector (paper, section 5): models fine-tuned against its score."""

from __future__ import annotations

from litmus.evasion.plan import EvasionSettings, Plan, Twin, make_plan
from litmus.evasion.refit import check_apart, refit
from litmus.evasion.study import (
    GROUPS,
    Evasion,
    Measured,
    Tuned,
    added_models,
    read_tuned,
    study,
)
from litmus.evasion.tune import tune

__all__ = [
    "GROUPS",
    "Evasion",
    "EvasionSettings",
    "Measured",
    "Plan",
    "Tuned",
    "Twin",
    "added_models",
    "check_apart",
    "make_plan",
    "read_tuned",
    "refit",
    "study",
    "tune",
]
