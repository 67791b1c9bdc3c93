"""How well detectors do: on a zoo's test split, and on groups of models that they never saw.

The same for reference images, which detectors carry.
"""

from __future__ import annotations

from litmus.evaluation.leave_out import GROUPINGS, LeaveOut, leave_out
from litmus.evaluation.references import ReferenceEvaluation, evaluate_references
from litmus.evaluation.rows import DetectionRow, ModelJudgement, detection_row
from litmus.evaluation.unseen import Comparison, Evaluation, evaluate

__all__ = [
    "GROUPINGS",
    "Comparison",
    "DetectionRow",
    "Evaluation",
    "LeaveOut",
    "ModelJudgement",
    "ReferenceEvaluation",
    "detection_row",
    "evaluate",
    "evaluate_references",
    "leave_out",
]
