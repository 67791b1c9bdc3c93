"""The contract of a model: images in [0, 1] go in, one row of class outputs comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError

__all__ = [
    "LOG_FLOOR",
    "Gradients",
    "Images",
    "InputSpec",
    "LastLayer",
    "LogProbs",
    "Model",
    "Objective",
    "Outputs",
    "log_probabilities",
    "looks_like_probabilities",
    "probabilities",
]

Images = NDArray[np.float32]
"""Float32 images in [0, 1], shape (n, c, h, w)."""
LogProbs = NDArray[np.float64]
"""Floored log-probabilities, shape (n, k) or (models, m, k)."""
LastLayer = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights (k, f) and bias (k,): logits = weights @ features + bias, up to one shift of them all."""
Outputs = Literal["logits", "probabilities"]
"""What a model returns; log-probabilities are logits, since log_softmax leaves them alone."""

Objective = Literal["cross_entropy", "margin"]
"""What is minimised: cross-entropy towards a target, or the largest other logit less its own."""

# exp(-30) is far below what float32 softmax can tell from 0 next to 1, so that a model scores
# the same however it was exported.
LOG_FLOOR: Final = -30.0


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Shape of a classifier: channels, height and width in pixels, number of classes."""

    channels: int
    height: int
    width: int
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width} -> {self.num_classes} classes"

    def to_json(self) -> dict[str, int]:
        """Return a plain dictionary for a header."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InputSpec:
        """Read what `to_json` wrote."""
        return cls(**{name: int(value[name]) for name in cls.__dataclass_fields__})


class Gradients(Protocol):
    """A classifier that can be differentiated with respect to its images.

    Its logits are those of the model; of one that returns probabilities, their floored logarithms.
    """

    @property
    def input_spec(self) -> InputSpec:
        """What it takes and returns."""

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return the logits (n, k) of images (n, c, h, w) in [0, 1]."""

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        """Return logits (n, k), and each image's gradient (n, c, h, w) of its own objective.

        `targets` (n,) are classes. The objective's gradient to the logits is ``softmax(logits) -
        onehot(target)`` for the cross-entropy, ``onehot(largest other) - onehot(target)`` for the
        margin; the gradient is with respect to images in [0, 1].
        """


class Model(Protocol):
    """A classifier: float32 images in [0, 1], (n, c, h, w) -> outputs (n, k).

    Mean and standard deviation, 0..255 scaling and NHWC live inside, nowhere else. A model may
    also offer ``weights() -> Mapping[str, ndarray]``, ``torch_module() -> nn.Module``,
    ``gradients() -> Gradients``, which raises UnsupportedModelError where there are none, and
    ``last_layer() -> LastLayer``: the linear layer that gives the logits, or the 1x1 convolution
    whose maps are averaged to them, with any affine map behind it folded in and a bias of zeros
    where it has none. It raises UnsupportedModelError where the model ends otherwise. One whose
    preprocessing may be another than is known has it as ``preprocessing``, and
    ``with_preprocessing(preprocessing) -> Model``.
    """

    @property
    def input_spec(self) -> InputSpec:
        """What it takes and returns."""

    @property
    def outputs(self) -> Outputs:
        """Whether it returns logits (or log-probabilities) or probabilities."""

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the raw outputs, (n, k)."""


def log_probabilities(outputs: NDArray[Any], kind: Outputs = "logits") -> LogProbs:
    """Return the canonical output of a classifier: floored log-probabilities in float64.

    `outputs` has shape (..., k). It is log(p + e^-30), in the same shape; for logits
    ``logaddexp(log_softmax(logits), -30)``. Raises ModelError when an output is NaN or infinite.
    """
    floored: LogProbs = np.log(probabilities(outputs, kind))
    return floored


def probabilities(outputs: NDArray[Any], kind: Outputs = "logits") -> NDArray[np.float64]:
    """Return p + e^-30, whose logarithms are `log_probabilities`; same shape, same errors."""
    values = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ModelError("the model's outputs are not numbers", got="NaN or infinity")
    floored: NDArray[np.float64]
    if kind == "probabilities":
        floored = np.maximum(values, 0.0) + np.exp(LOG_FLOOR)
        return floored
    with np.errstate(over="ignore"):  # 1e308 beside -1e308: the smaller one is at the floor
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
    floored = powers / powers.sum(axis=-1, keepdims=True) + np.exp(LOG_FLOOR)
    return floored


def looks_like_probabilities(outputs: NDArray[Any]) -> bool:
    """Whether all rows of `outputs` (n, k) are non-negative and sum to 1 within 1e-3."""
    values = np.asarray(outputs, dtype=np.float64)
    return bool((values >= 0).all() and (np.abs(values.sum(axis=-1) - 1) < 1e-3).all())
