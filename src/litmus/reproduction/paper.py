"""The paper's own figures, to stand beside ours."""

from __future__ import annotations

from typing import Final

__all__ = [
    "PAPER_ACCURACY",
    "PAPER_AUC",
    "PAPER_SECONDS",
    "PAPER_SPEED_UP",
    "PAPER_ZOO",
    "paper_auc",
]

PAPER_AUC: Final[dict[str, dict[str, dict[int | None, float]]]] = {
    "mnist": {
        "noise": {1: 0.94, 5: 0.90, 10: 0.86},
        "attack_based": {None: 0.94},
        "ulp": {1: 0.94, 5: 0.99, 10: 1.00},
    },
    "cifar10": {
        "noise": {1: 0.62, 5: 0.68, 10: 0.59},
        "attack_based": {None: 0.59},
        "ulp": {1: 0.68, 5: 0.99, 10: 1.00},
    },
    "gtsrb": {
        "noise": {1: 0.61, 5: 0.59, 10: 0.54},
        "attack_based": {None: 0.74},
        "ulp": {1: 0.75, 5: 0.88, 10: 0.90},
    },
}
"""AUC by data set, detector and M: Table 1 of the paper, whose 'Baseline' is `attack_based`."""
PAPER_ZOO: Final = {
    "mnist": {"clean_accuracy": 0.994, "attack_success": 1.0},
    "cifar10": {"clean_accuracy": 0.795, "attack_success": 0.999},
    "gtsrb": {"clean_accuracy": 0.992, "attack_success": 0.972},
}
"""Mean clean accuracy and attack success of the backdoored models: Table 1 of the paper."""
PAPER_ACCURACY: Final = {("cifar10", 5): 0.745, ("gtsrb", 10): 0.846}
"""Detection accuracy of ULP by data set and M (4.2, 4.3)."""
PAPER_SECONDS: Final = {
    "mnist": {"ulp": 0.010, "attack_based": 180.0},
    "cifar10": {"ulp": 0.018, "attack_based": 240.0},
    "gtsrb": {"ulp": 0.020, "attack_based": 1800.0},
}
"""Seconds a network on one P100 (4.4)."""
PAPER_SPEED_UP: Final = {"gtsrb": 90_000}
"""How many times faster than the baseline ULP is, where the paper says so (4.3)."""


def paper_auc(dataset: str, detector: str, num_patterns: int | None) -> float | None:
    """Return the paper's AUC for a row of Table 1, or None where it has no such row."""
    return PAPER_AUC.get(dataset, {}).get(detector, {}).get(num_patterns)
