"""Heads in torch: from a minibatch of models' answers to logits, while they learn and after.

`litmus.features.head_logits` computes the same in numpy, for scoring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.features import HeadName, Parameters, Pooling
from litmus.seeds import torch_generator

__all__ = ["Head", "fitted_head", "make_head", "scaled_per_model"]

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
    """Standardisation that follows the features while they change, and what it feeds.

    `learned` are the parameters beside it, float64, named as in `litmus.features.HEADS`; weight
    decay applies to those in `decayed`.
    """

    decayed: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        mean: torch.Tensor,
        var: torch.Tensor,
        learned: dict[str, torch.Tensor],
        pooling: Pooling,
    ) -> None:
        self.mean, self.var, self._learned, self._pooling = mean, var, learned, pooling

    @classmethod
    def first(cls, answers: torch.Tensor, pooling: Pooling, seed: int) -> Self:
        """Return a head that begins to learn from a zoo's answers (n, m, k)."""
        rows = cls.rows(answers, pooling)
        learned = cls.drawn(answers.shape[1], rows.shape[1], seed)
        for tensor in learned.values():
            tensor.requires_grad_()
        return cls(rows.mean(dim=0), rows.var(dim=0, correction=0), learned, pooling)

    @classmethod
    def fitted(cls, parameters: Parameters, pooling: Pooling) -> Self:
        """Return the head with the parameters that `arrays` gave; it learns no more."""
        learned = {name: torch.tensor(array) for name, array in parameters.items()}
        mean, std = learned.pop("mean"), learned.pop("std")
        return cls(mean, std.square(), learned, pooling)

    @staticmethod
    @abstractmethod
    def rows(answers: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        """Return what is standardised, column by column, of answers (n, m, k): (rows, f)."""

    @staticmethod
    @abstractmethod
    def drawn(m: int, f: int, seed: int) -> dict[str, torch.Tensor]:
        """Return the parameters to begin with, for m patterns and rows of f numbers."""

    @abstractmethod
    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters that weight decay applies to."""
        return {name: self._learned[name] for name in self.decayed}

    def biases(self) -> dict[str, torch.Tensor]:
        """Return the others."""
        return {n: tensor for n, tensor in self._learned.items() if n not in self.decayed}

    def follow(self, answers: torch.Tensor, share: float) -> None:
        """Move mean and variance to those of a minibatch by `share` of the way."""
        rows = self.rows(answers, self._pooling)
        self.mean = self.mean.lerp(rows.mean(dim=0), share)
        self.var = self.var.lerp((rows - self.mean).square().mean(dim=0), share)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of all parameters, named as in `litmus.features.HEADS`."""
        learned = {name: tensor.detach().numpy().copy() for name, tensor in self._learned.items()}
        return {"mean": self.mean.numpy().copy(), "std": self._std().numpy().copy(), **learned}

    def _standardised(self, answers: torch.Tensor) -> torch.Tensor:
        return (self.rows(answers, self._pooling) - self.mean) / self._std()

    def _std(self) -> torch.Tensor:
        return self.var.sqrt().clamp(min=_STD_FLOOR)


class LinearHead(Head):
    """A softmax classifier on the pooled answers (paper 3.3).

    It starts at zero: its first steps follow the data, not a random direction. `weight` is
    (2, f), `bias` (2,).
    """

    decayed: ClassVar[tuple[str, ...]] = ("weight",)

    @staticmethod
    def rows(answers: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        """Return the pooled answers, (n, m * k) or (n, k)."""
        if pooling == "concatenate":
            return answers.flatten(1)
        return answers.amax(dim=1) if pooling == "max" else answers.mean(dim=1)

    @staticmethod
    def drawn(m: int, f: int, seed: int) -> dict[str, torch.Tensor]:
        """Return zeros."""
        return {
            "weight": torch.zeros(2, f, dtype=torch.float64),
            "bias": torch.zeros(2, dtype=torch.float64),
        }

    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""
        p = self._learned
        return F.linear(self._standardised(answers), p["weight"], p["bias"])


class ClassSetHead(Head):
    """The same layer for each class's answers, then mean and maximum over classes (DeepSets).

    `class_weight` is (h, m), `class_bias` (h,), `weight` (2, 2 h), `bias` (2,).
    """

    decayed: ClassVar[tuple[str, ...]] = ("class_weight", "weight")

    @staticmethod
    def rows(answers: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        """Return each class's answers, (n * k, m)."""
        return answers.transpose(1, 2).flatten(0, 1)

    @staticmethod
    def drawn(m: int, f: int, seed: int) -> dict[str, torch.Tensor]:
        """Return a random first layer and zeros."""
        random = torch.randn(_HIDDEN, m, generator=torch_generator(seed, "head")) * (2 / m) ** 0.5
        return {
            "class_weight": random.double(),
            "class_bias": torch.zeros(_HIDDEN, dtype=torch.float64),
            "weight": torch.zeros(2, 2 * _HIDDEN, dtype=torch.float64),
            "bias": torch.zeros(2, dtype=torch.float64),
        }

    def logits(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) for answers (n, m, k)."""
        n, _, k = answers.shape
        p = self._learned
        hidden = F.linear(self._standardised(answers), p["class_weight"], p["class_bias"])
        classes = hidden.relu().view(n, k, -1)
        feature = torch.cat([classes.mean(dim=1), classes.amax(dim=1)], dim=1)
        return F.linear(feature, p["weight"], p["bias"])


_HEADS: Final[dict[HeadName, type[Head]]] = {"linear": LinearHead, "class_set": ClassSetHead}


def make_head(name: HeadName, answers: torch.Tensor, pooling: Pooling, seed: int) -> Head:
    """Return a head that starts from a zoo's answers (n, m, k)."""
    return _HEADS[name].first(answers, pooling, seed)


def fitted_head(name: HeadName, parameters: Parameters, pooling: Pooling) -> Head:
    """Return a head that was fitted, from the arrays of a detector."""
    return _HEADS[name].fitted(parameters, pooling)
