"""How well detectors do: on a zoo's test split, and on groups of models that they never saw."""

from __future__ import annotations

from litmus.evaluation.learning_curve import learning_curve, learning_shares
from litmus.evaluation.leave_out import GROUPINGS, LeaveOut, leave_out
from litmus.evaluation.rows import DetectionRow, ModelJudgement, detection_row
from litmus.evaluation.unseen import Comparison, Evaluation, evaluate

__all__ = [
    "GROUPINGS",
    "Comparison",
    "DetectionRow",
    "Evaluation",
    "LeaveOut",
    "ModelJudgement",
    "detection_row",
    "evaluate",
    "learning_curve",
    "learning_shares",
    "leave_out",
]
