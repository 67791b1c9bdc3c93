"""A learning curve as text, with the advice that follows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Final

from litmus.detectors.learning_curve import LearningCurve, Trend
from litmus.reports.console import render_table

__all__ = ["advice", "learning_curve_text"]

_BAR: Final = 40
"""Characters from an AUC of 0.5 to 1."""
_WIDTH: Final = 100
_TOO_MANY: Final = 8
"""Times as many models: more than anybody should build on the word of a power law."""


def learning_curve_text(curve: LearningCurve) -> str:
    """Return the curve as a table with bars, and below it what follows."""
    rows = [
        [
            str(point.num_models),
            f"{point.auc:.3f} ({point.auc_low:.3f} to {point.auc_high:.3f})",
            "#" * max(0, round((point.auc - 0.5) / 0.5 * _BAR)),
        ]
        for point in curve.points
    ]
    table = render_table(["models in the zoo", "held-out AUC (95 %)", "0.5 to 1"], rows)
    return f"{table}{textwrap.fill(advice(curve), _WIDTH)}\n"


def advice(curve: LearningCurve) -> str:
    """Return what the curve's end tells whoever could build more models, in a few sentences."""
    return (
        f"{_ADVICE[curve.trend](curve)} This holds for models like those of the zoo; what becomes "
        "of others, litmus evaluate --leave-out architecture measures."
    )


def _rising(curve: LearningCurve) -> str:
    now, enough = curve.points[-1].num_models, curve.models_for_half_the_error()
    guess = "so slowly that other models may help sooner than more of these"
    if enough <= _TOO_MANY * now:
        guess = (
            f"and if 1 - AUC goes on falling as it did, about {_rounded(enough)} models would "
            "halve it: a rough guess"
        )
    return f"Still rising: {_doubling(curve)}. More models are likely to help, {guess}."


def _flat(curve: LearningCurve) -> str:
    return (
        f"Flat: {_doubling(curve)}. More models of these kinds are unlikely to help. Vary "
        "architectures, trainings and attacks instead (recipes may sample them), or try other "
        "settings of the fit."
    )


def _saturated(curve: LearningCurve) -> str:
    return (
        f"Nothing left to gain that {curve.n_clean} clean + {curve.n_backdoored} backdoored models "
        f"could show: {_last(curve)}. More models of these kinds would narrow the interval and "
        "allow a smaller --fpr; varied architectures, trainings and attacks would teach more."
    )


def _chance(curve: LearningCurve) -> str:
    return (
        f"Not better than chance, as far as can be told: {_last(curve)}, and {_doubling(curve)}. "
        "Before you build more models, see with litmus zoo list that the attacks succeed, and try "
        "other settings, such as --detector fused, --set start=background or "
        "--set pattern_learning_rate=0.1."
    )


def _unclear(curve: LearningCurve) -> str:
    return (
        f"Not clear: {_doubling(curve)}, and {curve.n_clean} clean + {curve.n_backdoored} "
        "backdoored models do not tell a rise from luck. Other seeds or a larger zoo would."
    )


_ADVICE: Final[Mapping[Trend, Callable[[LearningCurve], str]]] = {
    "rising": _rising,
    "flat": _flat,
    "saturated": _saturated,
    "chance": _chance,
    "unclear": _unclear,
}


def _last(curve: LearningCurve) -> str:
    last = curve.points[-1]
    return f"AUC {last.auc:.3f} ({last.auc_low:.3f} to {last.auc_high:.3f})"


def _doubling(curve: LearningCurve) -> str:
    d = curve.last_doubling
    before, after = curve.points[-2].num_models, curve.points[-1].num_models
    return (
        f"from {before} to {after} models the AUC changed by {d.difference:+.3f} "
        f"({d.low:+.3f} to {d.high:+.3f})"
    )


def _rounded(count: float) -> int:
    """Two digits: more would claim too much."""
    return int(round(count, 1 - math.floor(math.log10(count))))
