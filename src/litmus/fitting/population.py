"""Zoo models held in memory as differentiable functions of their input."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litmus.architectures import ACTIVATIONS, fold_batch_norm
from litmus.formats import zoo_file
from litmus.models import LOG_FLOOR
from litmus.zoo import ZooEntry

__all__ = ["ModelDropout", "Population", "canonical"]

_ACTIVATIONS: Final = tuple(ACTIVATIONS.values())


class ModelDropout:
    """Random dropout on the zoo models' activations: augmentation of models (paper 3.3).

    A context: inside it, and in its thread only, whole channels are dropped behind every
    activation of every model of a population, the same ones for all patterns, so that one step
    sees one thinned network.
    """

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        self._rate, self._generator = rate, generator

    def __enter__(self) -> None:
        _active.dropout = self if self._rate else None

    def __exit__(self, *exception: object) -> None:
        _active.dropout = None

    def thin(self, activation: torch.Tensor) -> torch.Tensor:
        """Return the activation (n, c, ...) with channels dropped and the others scaled up."""
        shape = (1, activation.shape[1], *(1,) * (activation.dim() - 2))
        kept = torch.rand(shape, generator=self._generator) >= self._rate
        return activation * (kept.to(activation.dtype) / (1 - self._rate))


_active = threading.local()


def _thin_if_asked(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor | None:
    dropout: ModelDropout | None = getattr(_active, "dropout", None)
    return dropout.thin(output) if dropout else None


class Population:
    """Networks with BatchNorm folded and weights frozen, and which of them are backdoored.

    `twin` (n,) numbers the pairs of a backdoored model and its control; by default each model is
    alone. `group` (n,) numbers the families of architectures; by default there is one.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        backdoored: NDArray[np.bool_],
        twin: NDArray[np.int64] | None = None,
        group: NDArray[np.int64] | None = None,
    ) -> None:
        self.modules = list(modules)
        count = len(self.modules)
        self.backdoored = torch.from_numpy(backdoored.astype(np.int64))
        self.twin = torch.from_numpy(np.arange(count) if twin is None else twin)
        self.group = torch.from_numpy(np.zeros(count, np.int64) if group is None else group)

    @classmethod
    def load(cls, entries: Sequence[ZooEntry]) -> Population:
        """Read the models of a zoo; raises ModelError where a file is damaged."""
        modules = [zoo_file.load(entry.path).torch_module() for entry in entries]
        _, group = np.unique([entry.architecture for entry in entries], return_inverse=True)
        return cls.prepared(
            modules,
            np.array([entry.backdoored for entry in entries]),
            np.array([entry.spec.twin for entry in entries]),
            group.astype(np.int64),
        )

    @classmethod
    def prepared(
        cls,
        modules: Sequence[nn.Module],
        backdoored: NDArray[np.bool_],
        twin: NDArray[np.int64] | None = None,
        group: NDArray[np.int64] | None = None,
    ) -> Population:
        """Make networks ready, in place: BatchNorm folded, weights frozen, dropout at hand."""
        ready = [fold_batch_norm(module.eval()) for module in modules]
        for module in ready:
            module.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for layer in module.modules():
                if isinstance(layer, _ACTIVATIONS):
                    layer.register_forward_hook(_thin_if_asked)
        return cls(ready, backdoored, twin, group)

    def __len__(self) -> int:
        return len(self.modules)

    def subset(self, index: NDArray[np.int64]) -> Population:
        """Return the models at these positions; they share memory with this population's."""
        return Population(
            [self.modules[i] for i in index],
            self.backdoored.numpy()[index],
            self.twin.numpy()[index],
            self.group.numpy()[index],
        )

    def twins(self) -> list[list[int]]:
        """Return the positions of each twin's models."""
        members: dict[int, list[int]] = {}
        for place, twin in enumerate(self.twin.tolist()):
            members.setdefault(twin, []).append(place)
        return list(members.values())

    def answers(
        self,
        patterns: torch.Tensor,
        index: Sequence[int],
        read: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return float64 (len(index), m, k): what the models answer to patterns (m, c, h, w).

        `read` turns logits into features; gradients flow back to the patterns.
        """
        batch = patterns.contiguous(memory_format=torch.channels_last)
        return torch.stack([read(self.modules[i](batch)) for i in index])


def canonical(logits: torch.Tensor) -> torch.Tensor:
    """Floored log-probabilities in float64, as `litmus.models.log_probabilities` has them."""
    log_softmax = torch.log_softmax(logits.double(), dim=-1)
    return torch.logaddexp(log_softmax, torch.tensor(LOG_FLOOR, dtype=torch.float64))
