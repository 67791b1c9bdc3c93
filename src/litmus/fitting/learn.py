"""Equation (1) of the paper: patterns and head learned jointly on a population of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.features import Parameters
from litmus.fitting.adversary import Adversary
from litmus.fitting.canvas import Canvas, GeneratedCanvas, PixelCanvas
from litmus.fitting.population import ModelDropout, Population, canonical
from litmus.fitting.readout import make_head, scaled_per_model
from litmus.fitting.settings import PatternSettings
from litmus.fitting.starts import starting_patterns
from litmus.metrics import auc
from litmus.models import InputSpec
from litmus.seeds import torch_generator

__all__ = ["EpochReport", "Learned", "learn", "total_variation"]


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """How a fit goes: mean training loss of the epoch, and AUC on the validation models."""

    epoch: int
    epochs: int
    loss: float
    validation_auc: float


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What was learned: patterns (m, c, h, w) and the head's parameters by name."""

    patterns: NDArray[np.float32]
    parameters: Parameters
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
    initial: NDArray[np.float32] | None = None,
    background: NDArray[np.float32] | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
) -> Learned:
    """Fit patterns and head, and return those of the epoch that did best on `validation`.

    Best is the highest AUC, then the lowest cross-entropy. The patterns begin as `initial`
    (m, c, h, w) in [0, 1], by default as random pixels, integers 0..255 over 255; where the
    settings say so as faint noise on `background` (c,). Deterministic for a seed, torch version,
    processor and number of threads. Raises UsageError where `initial` has another shape or the
    background is missing.
    """
    if initial is not None:
        patterns = torch.tensor(initial)
    else:
        patterns = starting_patterns(input_spec, settings, seed, background)
    shape = (settings.num_patterns, *input_spec.image_shape)
    if tuple(patterns.shape) != shape:
        raise UsageError("patterns of another shape", expected=shape, got=tuple(patterns.shape))
    return _Fit(training, validation, patterns, settings, seed).run(on_epoch)


class _Fit:
    def __init__(
        self,
        training: Population,
        validation: Population,
        start: torch.Tensor,
        settings: PatternSettings,
        seed: int,
    ) -> None:
        self.training, self.validation, self.settings = training, validation, settings
        self.dropout = ModelDropout(settings.dropout, torch_generator(seed, "dropout"))
        self.canvas: Canvas = PixelCanvas(start)
        if settings.canvas == "generator":
            self.canvas = GeneratedCanvas(start, seed)
        self.order = torch_generator(seed, "order")
        with torch.no_grad():
            answers = self._answers(training, range(len(training)))
        self.head = make_head(settings.head, answers, settings.pooling, seed)
        self.adversary = Adversary(training.group) if settings.balance_weight else None
        # Noise needs no second look at the models, and so no model dropout either.
        self.fixed = None if settings.learn_patterns else answers

    def run(self, on_epoch: Callable[[EpochReport], None]) -> Learned:
        s = self.settings
        optimizers = self._optimizers()
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

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        s = self.settings
        groups: list[dict[str, object]] = [
            {"params": [*self.head.weights().values()], "weight_decay": s.head_weight_decay},
            {"params": [*self.head.biases().values()], "weight_decay": 0.0},
        ]
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=s.head_learning_rate)
        ]
        if s.learn_patterns:
            rate = s.pattern_learning_rate
            optimizers.append(torch.optim.Adam(self.canvas.parameters(), lr=rate))
        return optimizers

    def _batches(self) -> Iterator[list[int]]:
        """Yield minibatches of models; where twins are compared, of whole twins."""
        size = self.settings.batch_models
        units = [[i] for i in range(len(self.training))]
        if self.settings.twin_weight:
            units, size = self.training.twins(), max(1, size // 2)
        order = torch.randperm(len(units), generator=self.order)
        for start in range(0, len(order), size):
            yield [i for unit in order[start : start + size].tolist() for i in units[unit]]

    def _step(self, batch: list[int], optimizers: list[torch.optim.Optimizer]) -> float:
        """One minibatch: the mean of the models' losses plus the regulariser."""
        if self.fixed is None:
            with self.dropout:
                answers = self._answers(self.training, batch)
            self.head.follow(answers.detach(), len(answers) / len(self.training))
        else:
            answers = self.fixed[batch]
        logits = self.head.logits(answers)
        loss = objective = self._loss(logits, batch)
        if self.adversary is not None:
            known = self.training.backdoored[batch], self.training.group[batch]
            gain = self.adversary.loss(logits[:, 1] - logits[:, 0], *known)
            objective = objective + self.settings.balance_weight * gain
        if self.settings.learn_patterns and self.settings.tv_weight:
            variation = total_variation(self.canvas.patterns()).double()
            objective = objective + self.settings.tv_weight * variation
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(objective)
        for optimizer in optimizers:
            optimizer.step()
        self.canvas.project()
        return loss.item()

    def _loss(self, logits: torch.Tensor, batch: list[int]) -> torch.Tensor:
        """Cross-entropy, and for a share of it how each twin's models are ranked."""
        kinds = self.training.backdoored[batch]
        loss = F.cross_entropy(logits, kinds)
        share = self.settings.twin_weight
        if not share:
            return loss
        score, twin = logits[:, 1] - logits[:, 0], self.training.twin[batch]
        pairs = (twin[:, None] == twin[None, :]) & (kinds[:, None] > kinds[None, :])
        margins = (score[:, None] - score[None, :])[pairs]
        return (1 - share) * loss + share * F.softplus(-margins).sum() / max(1, len(margins))

    def _validate(self) -> tuple[float, float]:
        with torch.no_grad():
            logits = self.head.logits(self._answers(self.validation, range(len(self.validation))))
            loss = F.cross_entropy(logits, self.validation.backdoored)
        scores = (logits[:, 1] - logits[:, 0]).numpy()
        return loss.item(), auc(scores, self.validation.backdoored.numpy())

    def _answers(self, population: Population, index: Sequence[int]) -> torch.Tensor:
        read = canonical if self.settings.features == "log_probs" else torch.Tensor.double
        answers = population.answers(self.canvas.patterns(), index, read)
        return scaled_per_model(answers) if self.settings.scale_per_model else answers

    def _snapshot(self, epoch: int, validation_auc: float) -> Learned:
        return Learned(
            patterns=self.canvas.patterns().detach().numpy().copy(),
            parameters=self.head.arrays(),
            best_epoch=epoch,
            validation_auc=validation_auc,
        )
