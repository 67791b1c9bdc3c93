"""What a backdoor leaves in the weights of the last layer; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.outliers import robust_scores
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import ModelError, UnsupportedModelError
from litmus.models import Model

__all__ = ["TINY", "LastLayerDetector", "layer_statistics"]

TINY: Final = 1e-12
"""What is divided by is never smaller."""


def _kurtosis(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (rows - rows.mean(axis=1, keepdims=True)) ** 2
    ratio: NDArray[np.float64] = np.mean(squares**2, axis=1) / np.maximum(
        np.mean(squares, axis=1) ** 2, TINY
    )
    return ratio


_PER_CLASS: Final[Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "mean": lambda rows: rows.mean(axis=1),
    "norm": lambda rows: np.sqrt((rows**2).sum(axis=1)),
    "largest": lambda rows: rows.max(axis=1),
    "smallest": lambda rows: rows.min(axis=1),
    "positive": lambda rows: np.maximum(rows, 0).mean(axis=1),
    "kurtosis": _kurtosis,
}
"""What is read of each class's weights (k, f) -> (k,)."""
_PLACES: Final = ("first", "second", "last")


def layer_statistics(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers of `LastLayerDetector.statistic_names` for weights (k, f).

    They do not depend on the order of classes or features, on the scale of the weights, or on what
    is added to all classes alike, which no softmax shows.
    """
    rows = weights - weights.mean(axis=0)
    rows = rows / max(float(np.abs(rows).max()), TINY)
    scores = [np.sort(robust_scores(statistic(rows))) for statistic in _PER_CLASS.values()]
    return np.array(scores)[:, [-1, -2, 0]].flatten()


@dataclass(frozen=True, kw_only=True)
class LastLayerDetector(StatisticDetector):
    """Outlying classes among the rows of the last layer's weights.

    Of each class: mean weight (Fields et al. 2021 saw the target class's stand out), norm, largest
    and smallest weight, mean positive part, kurtosis; of each of these the largest, the second and
    the smallest robust score over classes. That several indicators do better than one is from
    DFBScanner (Yu et al. 2026). Biases and cosines between classes are left out: they follow how
    many images a class has and how a network is trained, and tell no more of a backdoor.
    """

    name: ClassVar[str] = "last_layer"
    needs_weights: ClassVar[bool] = True
    remembers: ClassVar[bool] = False
    statistic_names: ClassVar[tuple[str, ...]] = tuple(
        f"{name}, {place}" for name in _PER_CLASS for place in _PLACES
    )

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return `layer_statistics`; raises UnsupportedModelError without a last layer.

        And ModelError where its bias is no number: such a network answers nothing.
        """
        last_layer = getattr(model, "last_layer", None)
        if last_layer is None:
            raise UnsupportedModelError(
                f"{self.name} needs weights", expected="a model with last_layer"
            )
        weights, bias = last_layer()
        if not np.isfinite(bias).all():
            raise ModelError("the model's weights are not numbers", got="NaN or infinity in a bias")
        return layer_statistics(weights)
