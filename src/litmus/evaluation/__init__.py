"""How well detectors do: on a zoo's test split, and on groups of models that they never saw.

The same for reference images, which detectors carry.
"""

from __future__ import annotations

from litmus.evaluation.breakdown import ALL, PROPERTIES, BreakdownRow, breakdown
from litmus.evaluation.learning_curve import learning_curve, learning_shares
from litmus.evaluation.leave_out import GROUPINGS, LeaveOut, leave_out
from litmus.evaluation.references import ReferenceEvaluation, evaluate_references
from litmus.evaluation.rows import DetectionRow, ModelJudgement, detection_row
from litmus.evaluation.unseen import Comparison, Evaluation, check_detectors, evaluate
from litmus.evaluation.variants import Variant, VariantPlan, load_plan, mean_auc_difference

__all__ = [
    "ALL",
    "GROUPINGS",
    "PROPERTIES",
    "BreakdownRow",
    "Comparison",
    "DetectionRow",
    "Evaluation",
    "LeaveOut",
    "ModelJudgement",
    "ReferenceEvaluation",
    "Variant",
    "VariantPlan",
    "breakdown",
    "check_detectors",
    "detection_row",
    "evaluate",
    "evaluate_references",
    "learning_curve",
    "learning_shares",
    "leave_out",
    "load_plan",
    "mean_auc_difference",
]
