"""Model dropout: networks thinned at random while a detector learns from them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["ModelDropout", "thin_if_asked"]


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
        factor = kept.to(activation.dtype) / (1 - self._rate)
        return activation * factor.to(activation.device)

    def skip(self, shapes: Sequence[torch.Size]) -> None:
        """Draw what a model with activations of these shapes would have been thinned by."""
        for shape in shapes:
            torch.rand((1, shape[1], *(1,) * (len(shape) - 2)), generator=self._generator)

    @staticmethod
    def active() -> ModelDropout | None:
        """Return the one whose context this thread is in."""
        return getattr(_active, "dropout", None)


_active = threading.local()


def thin_if_asked(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor | None:
    """Be the forward hook of an activation: thin its output inside a ModelDropout."""
    dropout = ModelDropout.active()
    return dropout.thin(output) if dropout else None
