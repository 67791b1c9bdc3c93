"""Equation (1) of the paper: patterns and head learned jointly on a population of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.features import FEATURES, POOLINGS, Features, Pooling
from litmus.fitting.population import ModelDropout, Population, canonical
from litmus.metrics import auc
from litmus.models import InputSpec
from litmus.seeds import torch_generator

__all__ = ["EpochReport", "Learned", "PatternSettings", "learn", "total_variation"]

_STD_FLOOR: Final = 1e-3
"""A feature that is the same for all models tells nothing and must not be blown up."""


@dataclass(frozen=True, kw_only=True)
class PatternSettings:
    """Hyperparameters of a fit.

    `learn_patterns` False keeps the random patterns (the paper's noise input). `dropout` is the
    share of channels that model dropout removes. Learning rates are Adam's.
    """

    num_patterns: int = 10
    pooling: Pooling = "concatenate"
    features: Features = "log_probs"
    learn_patterns: bool = True
    epochs: int = 60
    batch_models: int = 16
    pattern_learning_rate: float = 0.03
    head_learning_rate: float = 0.01
    head_weight_decay: float = 0.1
    tv_weight: float = 1e-4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, low in {"num_patterns": 1, "epochs": 1, "batch_models": 1}.items():
            if getattr(self, name) < low:
                raise UsageError(
                    f"{name} is impossible", expected=f">= {low}", got=getattr(self, name)
                )
        for name, allowed in {"pooling": POOLINGS, "features": FEATURES}.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"unknown {name}", expected=" or ".join(allowed), got=getattr(self, name)
                )
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout is impossible", expected="0 <= p < 1", got=self.dropout)


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """How a fit goes: mean training loss of the epoch, and AUC on the validation models."""

    epoch: int
    epochs: int
    loss: float
    validation_auc: float


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What was learned: patterns (m, c, h, w), head (2, f) and (2,), standardisation (f,) each."""

    patterns: NDArray[np.float32]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    best_epoch: int
    validation_auc: float


def total_variation(patterns: torch.Tensor) -> torch.Tensor:
    """Return sum over patterns of R(z) = ||grad z||_1 (paper 3.3), forward differences."""
    vertical = (patterns[:, :, 1:] - patterns[:, :, :-1]).abs().sum()
    horizontal = (patterns[:, :, :, 1:] - patterns[:, :, :, :-1]).abs().sum()
    return vertical + horizontal


def learn(
    training: Population,
    validation: Population,
    input_spec: InputSpec,
    settings: PatternSettings,
    *,
    seed: int,
    start: NDArray[np.float32] | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
) -> Learned:
    """Fit patterns and head, and return those of the epoch that did best on `validation`.

    Best is the highest AUC, then the lowest cross-entropy. The patterns begin as `start`
    (m, c, h, w) in [0, 1], by default as random pixels, integers 0..255 over 255. Deterministic
    for a seed, torch version, processor and number of threads. Raises UsageError where `start`
    has another shape.
    """
    patterns = _random(input_spec, settings, seed) if start is None else torch.tensor(start)
    shape = (settings.num_patterns, *input_spec.image_shape)
    if tuple(patterns.shape) != shape:
        raise UsageError("patterns of another shape", expected=shape, got=tuple(patterns.shape))
    return _Fit(training, validation, patterns, settings, seed).run(on_epoch)


def _random(input_spec: InputSpec, settings: PatternSettings, seed: int) -> torch.Tensor:
    shape = (settings.num_patterns, *input_spec.image_shape)
    return torch.randint(0, 256, shape, generator=torch_generator(seed, "patterns")) / 255


class _Fit:
    def __init__(
        self,
        training: Population,
        validation: Population,
        patterns: torch.Tensor,
        settings: PatternSettings,
        seed: int,
    ) -> None:
        self.training, self.validation, self.settings = training, validation, settings
        self.dropout = ModelDropout(settings.dropout, torch_generator(seed, "dropout"))
        self.patterns = patterns.requires_grad_(settings.learn_patterns)
        self.order = torch_generator(seed, "order")
        start = self._pooled(training, range(len(training)))
        self.mean = start.mean(dim=0)
        self.var = start.var(dim=0, correction=0)
        features = start.shape[1]
        # The head starts at zero: its first steps follow the data, not a random direction.
        self.weight = torch.zeros(2, features, dtype=torch.float64, requires_grad=True)
        self.bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        # Noise needs no second look at the models, and so no model dropout either.
        self.fixed = None if settings.learn_patterns else start

    def run(self, on_epoch: Callable[[EpochReport], None]) -> Learned:
        s = self.settings
        groups: list[dict[str, object]] = [
            {"params": [self.weight], "weight_decay": s.head_weight_decay},
            {"params": [self.bias], "weight_decay": 0.0},
        ]
        head = torch.optim.AdamW(groups, lr=s.head_learning_rate)
        optimizers: list[torch.optim.Optimizer] = [head]
        if s.learn_patterns:
            optimizers.append(torch.optim.Adam([self.patterns], lr=s.pattern_learning_rate))
        best: Learned | None = None
        best_key = (-1.0, 0.0)
        for epoch in range(1, s.epochs + 1):
            losses = [self._step(batch, optimizers) for batch in self._batches()]
            loss, validation_auc = self._validate()
            if (validation_auc, -loss) > best_key:
                best_key = (validation_auc, -loss)
                best = self._snapshot(epoch, validation_auc)
            on_epoch(
                EpochReport(
                    epoch=epoch,
                    epochs=s.epochs,
                    loss=float(np.mean(losses)),
                    validation_auc=validation_auc,
                )
            )
        assert best is not None
        return best

    def _batches(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.training), generator=self.order)
        size = self.settings.batch_models
        for start in range(0, len(order), size):
            yield order[start : start + size].tolist()

    def _step(self, batch: list[int], optimizers: list[torch.optim.Optimizer]) -> float:
        """One minibatch: the mean of the models' cross-entropies plus the regulariser."""
        if self.fixed is None:
            with self.dropout:
                pooled = self._pooled(self.training, batch)
        else:
            pooled = self.fixed[batch]
        self._follow(pooled.detach())
        loss = F.cross_entropy(self._logits(pooled), self.training.backdoored[batch])
        objective = loss
        if self.settings.learn_patterns and self.settings.tv_weight:
            objective = loss + self.settings.tv_weight * total_variation(self.patterns).double()
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(objective)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            self.patterns.clamp_(0, 1)
        return loss.item()

    def _follow(self, pooled: torch.Tensor) -> None:
        """Keep mean and variance of the features over about the last epoch of models."""
        if self.fixed is not None:
            return
        share = len(pooled) / len(self.training)
        self.mean = self.mean.lerp(pooled.mean(dim=0), share)
        self.var = self.var.lerp((pooled - self.mean).square().mean(dim=0), share)

    def _validate(self) -> tuple[float, float]:
        with torch.no_grad():
            pooled = self._pooled(self.validation, range(len(self.validation)))
            logits = self._logits(pooled)
            loss = F.cross_entropy(logits, self.validation.backdoored)
        scores = (logits[:, 1] - logits[:, 0]).numpy()
        return loss.item(), auc(scores, self.validation.backdoored.numpy())

    def _logits(self, pooled: torch.Tensor) -> torch.Tensor:
        return F.linear((pooled - self.mean) / self._std(), self.weight, self.bias)

    def _std(self) -> torch.Tensor:
        return self.var.sqrt().clamp(min=_STD_FLOOR)

    def _pooled(self, population: Population, index: range | list[int]) -> torch.Tensor:
        read = canonical if self.settings.features == "log_probs" else torch.Tensor.double
        if isinstance(index, range):
            with torch.no_grad():
                answers = population.answers(self.patterns, index, read)
        else:
            answers = population.answers(self.patterns, index, read)
        if self.settings.pooling == "concatenate":
            return answers.flatten(1)
        return answers.amax(dim=1) if self.settings.pooling == "max" else answers.mean(dim=1)

    def _snapshot(self, epoch: int, validation_auc: float) -> Learned:
        return Learned(
            patterns=self.patterns.detach().numpy().copy(),
            weight=self.weight.detach().numpy().copy(),
            bias=self.bias.detach().numpy().copy(),
            mean=self.mean.numpy().copy(),
            std=self._std().numpy().copy(),
            best_epoch=epoch,
            validation_auc=validation_auc,
        )
