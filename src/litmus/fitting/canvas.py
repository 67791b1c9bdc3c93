"""Where patterns come from: free pixels, or a small linear generator that they share."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import torch

from litmus.seeds import torch_generator

__all__ = ["CANVASES", "Canvas", "CanvasName", "GeneratedCanvas", "PixelCanvas"]

CanvasName = Literal["pixels", "generator"]
CANVASES: Final[tuple[CanvasName, ...]] = ("pixels", "generator")

_CODE: Final = 32
"""Numbers that describe a pattern to the generator."""
_MARGIN: Final = 0.02
"""A sigmoid never reaches 0 or 1: patterns that start there start so far inside."""


class Canvas(Protocol):
    """What learns patterns (m, c, h, w) in [0, 1]."""

    def parameters(self) -> list[torch.Tensor]:
        """Return the leaves that are learned."""

    def patterns(self) -> torch.Tensor:
        """Return the patterns; gradients flow to the parameters."""

    def project(self) -> None:
        """Bring the parameters back to where patterns are images, after a step."""


class PixelCanvas:
    """Every pixel by itself (the paper's)."""

    def __init__(self, start: torch.Tensor) -> None:
        self._pixels = start.clone().requires_grad_()

    def parameters(self) -> list[torch.Tensor]:
        """Return the pixels."""
        return [self._pixels]

    def patterns(self) -> torch.Tensor:
        """Return the pixels."""
        return self._pixels

    def project(self) -> None:
        """Clamp to [0, 1]."""
        with torch.no_grad():
            self._pixels.clamp_(0, 1)


class GeneratedCanvas:
    """A code for each pattern and one linear generator (after ProbeGen, Kahana et al. 2024).

    Patterns are sigmoid(start + code @ generator), `start` taken as logits. Codes and generator
    begin as small random numbers.
    """

    def __init__(self, start: torch.Tensor, seed: int) -> None:
        count, size = len(start), start[0].numel()
        drawn = torch_generator(seed, "generator")
        self._shape = start.shape
        self._start = torch.logit(start.flatten(1), eps=_MARGIN)
        self._codes = torch.randn(count, _CODE, generator=drawn).requires_grad_()
        scale = 0.1 / _CODE**0.5
        self._generator = (torch.randn(_CODE, size, generator=drawn) * scale).requires_grad_()

    def parameters(self) -> list[torch.Tensor]:
        """Return codes and generator."""
        return [self._codes, self._generator]

    def patterns(self) -> torch.Tensor:
        """Return the generated patterns."""
        return torch.sigmoid(self._start + self._codes @ self._generator).view(self._shape)

    def project(self) -> None:
        """Do nothing: a sigmoid is an image."""
