"""Heads that learn: from a minibatch of models' answers to logits, in torch.

`litmus.features.head_logits` computes the same in numpy, for scoring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.features import HeadName, Pooling
from litmus.seeds import torch_generator

__all__ = ["Head", "make_head", "scaled_per_model"]

_STD_FLOOR: Final = 1e-3
"""A feature that is the same for all models tells nothing and must not be blown up."""
_HIDDEN: Final = 16
"""What a class-set head computes of each class."""


def scaled_per_model(answers: torch.Tensor) -> torch.Tensor:
    """Return answers (n, m, k) with each model's own mean 0 and deviation 1."""
    mean = answers.mean(dim=(1, 2), keepdim=True)
    std = answers.std(dim=(1, 2), keepdim=True, correction=0)
    return (answers - mean) / std.clamp(min=_STD_FLOOR)


class Head(ABC):
    """Standardisation that follows the features while they change, and what it feeds."""

    def __init__(self, answers: torch.Tensor) -> None:
        rows = self.rows(answers)
        self.mean = rows.mean(dim=0)
        self.var = rows.var(dim=0, correction=0)

    @abstractmethod
    def rows(self, answers: torch.Tensor) -> torch.Tensor:
        """Return what is standardised, column by column, of answers (n, m, k): (rows, f)."""

    @abstractmethod
    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters that weight decay applies to."""

    @abstractmethod
    def biases(self) -> dict[str, torch.Tensor]:
        """Return the others."""

    def follow(self, answers: torch.Tensor, share: float) -> None:
        """Move mean and variance to those of a minibatch by `share` of the way."""
        rows = self.rows(answers)
        self.mean = self.mean.lerp(rows.mean(dim=0), share)
        self.var = self.var.lerp((rows - self.mean).square().mean(dim=0), share)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of all parameters, named as in `litmus.features.HEADS`."""
        learned = {
            n: t.detach().numpy().copy() for n, t in (self.weights() | self.biases()).items()
        }
        return {"mean": self.mean.numpy().copy(), "std": self._std().numpy().copy(), **learned}

    def _standardised(self, answers: torch.Tensor) -> torch.Tensor:
        return (self.rows(answers) - self.mean) / self._std()

    def _std(self) -> torch.Tensor:
        return self.var.sqrt().clamp(min=_STD_FLOOR)


class LinearHead(Head):
    """A softmax classifier on the pooled answers (paper 3.3).

    It starts at zero: its first steps follow the data, not a random direction.
    """

    def __init__(self, answers: torch.Tensor, pooling: Pooling) -> None:
        self._pooling = pooling
        super().__init__(answers)
        self._weight = torch.zeros(2, len(self.mean), dtype=torch.float64, requires_grad=True)
        self._bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def rows(self, answers: torch.Tensor) -> torch.Tensor:
        """Return the pooled answers, (n, m * k) or (n, k)."""
        if self._pooling == "concatenate":
            return answers.flatten(1)
        return answers.amax(dim=1) if self._pooling == "max" else answers.mean(dim=1)

    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""
        return F.linear(self._standardised(answers), self._weight, self._bias)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weight (2, f)."""
        return {"weight": self._weight}

    def biases(self) -> dict[str, torch.Tensor]:
        """Return the bias (2,)."""
        return {"bias": self._bias}


class ClassSetHead(Head):
    """The same layer for each class's answers, then mean and maximum over classes (DeepSets)."""

    def __init__(self, answers: torch.Tensor, seed: int) -> None:
        super().__init__(answers)
        m = answers.shape[1]
        drawn = torch.randn(_HIDDEN, m, generator=torch_generator(seed, "head")) * (2 / m) ** 0.5
        self._class_weight = drawn.double().requires_grad_()
        self._class_bias = torch.zeros(_HIDDEN, dtype=torch.float64, requires_grad=True)
        self._weight = torch.zeros(2, 2 * _HIDDEN, dtype=torch.float64, requires_grad=True)
        self._bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def rows(self, answers: torch.Tensor) -> torch.Tensor:
        """Return each class's answers, (n * k, m)."""
        return answers.transpose(1, 2).flatten(0, 1)

    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""
        n, _, k = answers.shape
        hidden = F.linear(self._standardised(answers), self._class_weight, self._class_bias)
        classes = hidden.relu().view(n, k, -1)
        feature = torch.cat([classes.mean(dim=1), classes.amax(dim=1)], dim=1)
        return F.linear(feature, self._weight, self._bias)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return both layers' weights, (h, m) and (2, 2 h)."""
        return {"class_weight": self._class_weight, "weight": self._weight}

    def biases(self) -> dict[str, torch.Tensor]:
        """Return both layers' biases, (h,) and (2,)."""
        return {"class_bias": self._class_bias, "bias": self._bias}


def make_head(name: HeadName, answers: torch.Tensor, pooling: Pooling, seed: int) -> Head:
    """Return a head that starts from a zoo's answers (n, m, k)."""
    if name == "linear":
        return LinearHead(answers, pooling)
    return ClassSetHead(answers, seed)
