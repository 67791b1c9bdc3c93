"""MM-BD (Wang et al. 2022): a backdoor's target class can be had with a larger margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.effort import Effort
from litmus.detectors.outliers import robust_scores
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import UnsupportedModelError
from litmus.models import Model

if TYPE_CHECKING:
    from litmus.inversion import MarginSettings

__all__ = ["MaxMarginDetector", "margin_statistics"]

_SMALLEST: Final = 1e-3
"""Of the largest margin: a class that hardly any image reaches has no logarithm of its own."""


def margin_statistics(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers of `MaxMarginDetector.statistic_names` for margins (k,).

    They do not depend on the order of the classes or on the scale of the logits, the last one
    apart, which is that scale.
    """
    ordered = np.sort(np.maximum(margins, _SMALLEST * max(float(margins.max()), 1e-9)))[::-1]
    logs = np.log(ordered)
    middle = np.median(logs)
    scores = np.sort(robust_scores(margins))[::-1]
    return np.array(
        [
            logs[0] - middle,
            logs[1] - middle,
            logs[0] - logs[1],
            logs[-1] - middle,
            scores[0],
            scores[1],
            scores[-1],
            np.arcsinh(_gamma_score(ordered)),
            np.std(logs),
            middle,
        ]
    )


def _gamma_score(ordered: NDArray[np.float64]) -> float:
    """How far the first lies in the tail of a gamma distribution of the others, as a normal score.

    The paper's p-value, 1 - F(largest)^k, falls with it and is 0 to a computer for many a model.
    The distribution is fitted by moments; its cube root is all but normal (Wilson and Hilferty
    1931).
    """
    others = ordered[1:]
    mean, variance = float(others.mean()), float(others.var())
    # As for `robust_scores`: others that are all but equal must not make a score of any size.
    variance = max(variance, (0.01 * mean) ** 2)
    shape = mean**2 / variance
    ninth = 1 / (9 * shape)
    return float((np.cbrt(ordered[0] / mean) - (1 - ninth)) / np.sqrt(ninth))


@dataclass(frozen=True, kw_only=True)
class MaxMarginDetector(StatisticDetector):
    """Classes whose largest margin over all images stands out; no clean image is needed.

    Settings are those of `litmus.inversion.MarginSettings`.
    """

    name: ClassVar[str] = "max_margin"
    needs_gradients: ClassVar[bool] = True
    effort: ClassVar[Effort] = "standard"
    statistic_names: ClassVar[tuple[str, ...]] = (
        "log largest / median",
        "log second / median",
        "log largest / second",
        "log smallest / median",
        "score of the largest",
        "score of the second",
        "score of the smallest",
        "gamma score of the largest",
        "deviation of logs",
        "log median",
    )

    @classmethod
    def settings_type(cls) -> type[MarginSettings]:
        """Return `MarginSettings`."""
        from litmus.inversion import MarginSettings

        return MarginSettings

    def margins(self, model: Model) -> NDArray[np.float64]:
        """Return each class's largest margin (k,); raises UnsupportedModelError without gradients.

        The starts are the same for every model, so that only models make a difference.
        """
        from litmus.inversion import MarginSettings, maximum_margins

        gradients = self.gradients_of(model)
        if model.outputs != "logits":
            raise UnsupportedModelError(f"{self.name} reads logits", got=model.outputs)
        settings = MarginSettings(**self.resolved(MarginSettings, self.settings))
        return maximum_margins(gradients, settings)

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return `margin_statistics` of the model's margins."""
        return margin_statistics(self.margins(model))
