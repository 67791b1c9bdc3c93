"""Model dropout: networks thinned at random while a detector learns from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["ModelDropout", "activation_shapes", "thin_if_asked", "thinned"]


class ModelDropout:
    """Random dropout on the zoo models' activations: augmentation of models (paper 3.3).

    A context: inside it, and in its thread only, whole channels are dropped behind every
    activation of every model of a population, the same ones for all patterns, so that one step
    sees one thinned network.
    """

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        self._rate, self._generator = rate, generator

    def __enter__(self) -> None:
        _own.dropout = self if self._rate else None

    def __exit__(self, *exception: object) -> None:
        _own.dropout = None

    def draw(self, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
        """Return what thins a model with activations of these shapes, (n, c, ...): (1, c, 1...).

        A channel is multiplied by 0, or by so much that their mean stays. Models draw one after the
        other, however they are computed.
        """
        masks = []
        for shape in shapes:
            drawn = torch.rand((1, shape[1], *(1,) * (len(shape) - 2)), generator=self._generator)
            masks.append((drawn >= self._rate).float() / (1 - self._rate))
        return masks

    @staticmethod
    def active() -> ModelDropout | None:
        """Return the one whose context this thread is in."""
        return getattr(_own, "dropout", None)


_own = threading.local()


@contextmanager
def thinned(masks: Sequence[torch.Tensor]) -> Iterator[None]:
    """Multiply the activations of the one network that runs inside by these, in their order."""
    _own.masks = iter(masks)
    try:
        yield
    finally:
        _own.masks = None


def activation_shapes(module: nn.Module, images: torch.Tensor) -> list[torch.Size]:
    """Return the shapes of what a prepared network's activations return for these images."""
    _own.shapes = []
    try:
        with torch.no_grad():
            module(images)
        return list(_own.shapes)
    finally:
        _own.shapes = None


def thin_if_asked(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor | None:
    """Be the forward hook of an activation: thin its output inside `thinned`."""
    shapes: list[torch.Size] | None = getattr(_own, "shapes", None)
    if shapes is not None:
        shapes.append(output.shape)
    masks: Iterator[torch.Tensor] | None = getattr(_own, "masks", None)
    return None if masks is None else output * next(masks).to(output)
