"""What a backdoor leaves in the weights of the last layer; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.outliers import robust_scores
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import UnsupportedModelError
from litmus.models import LastLayer, Model

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
_SCORED: Final = (*_PER_CLASS, "bias", "nearest")
_PLACES: Final = ("first", "second", "last")


def layer_statistics(layer: LastLayer) -> NDArray[np.float64]:
    """Return the numbers of `LastLayerDetector.statistic_names` for weights (k, f), bias (k,).

    They do not depend on the order of classes or features, on the scale of the weights or of the
    biases, or on what is added to all classes alike, which no softmax shows.
    """
    weights, bias = layer
    rows = weights - weights.mean(axis=0)
    rows = rows / max(float(np.abs(rows).max()), TINY)
    cosines = _cosines(rows)
    others = ~np.eye(len(rows), dtype=bool)
    per_class = [statistic(rows) for statistic in _PER_CLASS.values()]
    per_class += [bias - bias.mean(), np.where(others, cosines, -1.0).max(axis=1)]
    scores = np.sort([robust_scores(values) for values in per_class], axis=1)
    apart = cosines[others]
    return np.concatenate(
        [scores[:, [-1, -2, 0]].flatten(), [apart.max(), apart.min(), apart.std()]]
    )


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    unit = rows / np.maximum(norms, TINY)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines


@dataclass(frozen=True, kw_only=True)
class LastLayerDetector(StatisticDetector):
    """Outlying classes among the rows of the last layer's weights.

    Of each class: mean weight (Fields et al. 2021 saw the target class's stand out), norm, largest
    and smallest weight, mean positive part, kurtosis, bias, cosine with the nearest other class;
    of each of these the largest, the second and the smallest robust score over classes. Then the
    largest, the smallest and the deviation of all cosines between two classes. That several
    indicators do better than one is from DFBScanner (Yu et al. 2026).
    """

    name: ClassVar[str] = "last_layer"
    needs_weights: ClassVar[bool] = True
    remembers: ClassVar[bool] = False
    statistic_names: ClassVar[tuple[str, ...]] = (
        *(f"{name}, {place}" for name in _SCORED for place in _PLACES),
        "largest cosine",
        "smallest cosine",
        "deviation of cosines",
    )

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return `layer_statistics`; raises UnsupportedModelError without a last layer."""
        last_layer = getattr(model, "last_layer", None)
        if last_layer is None:
            raise UnsupportedModelError(
                f"{self.name} needs weights", expected="a model with last_layer"
            )
        return layer_statistics(last_layer())
