"""A faint wave over the whole image (Barni et al. 2019, "SIG")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.drawn import DrawnAttack, Effect
from litmus.errors import RecipeError
from litmus.schema import STRICT
from litmus.shake import drawn_numbers

__all__ = ["Sinusoid"]

# How often the wave goes down and across the image, as multiples of the frequency; the paper's
# is the first, stripes that run from top to bottom.
_DIRECTIONS: Final = [(0, 1), (1, 0), (1, 1), (1, -1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sinusoid(DrawnAttack):
    """Adds `delta` sin(2 pi `frequency` column / width + phase), clamped to 0 to 255.

    `delta` is in grey levels of 255, `frequency` in waves from one edge to the other. The phase
    and whether it runs along columns, rows or one of the diagonals are drawn from `index`.
    """

    delta: Annotated[float, Field(ge=1, le=255)] = 20.0
    frequency: Annotated[float, Field(gt=0)] = 6.0

    letters: ClassVar[Mapping[str, str]] = {"d": "delta", "f": "frequency"}

    @property
    def stem(self) -> str:
        """The attack's name."""
        return "sinusoid"

    def wave(self, height: int, width: int) -> torch.Tensor:
        """Return what is added, in grey levels, float64 (h, w).

        Raises RecipeError for a wave that is finer than pixels can show.
        """
        if 2 * self.frequency >= min(height, width):
            raise RecipeError(
                "the sinusoid is finer than the image's pixels",
                expected=f"a frequency below {min(height, width) / 2:g}",
                got=self.frequency,
            )
        direction, phase = drawn_numbers(self.stream, 2).tolist()
        down, across = _DIRECTIONS[int(direction * len(_DIRECTIONS))]
        rows = down * torch.arange(height, dtype=torch.float64) / height
        columns = across * torch.arange(width, dtype=torch.float64) / width
        turns = self.frequency * (rows[:, None] + columns) + phase
        return torch.sin(2 * torch.pi * turns) * self.delta

    def effect(self, channels: int, height: int, width: int) -> Effect:
        """Return the addition."""
        # Images are whole numbers: rounding the wave rounds the sum.
        wave = self.wave(height, width).round().to(torch.int16)
        return lambda images: (images + wave).clamp_(0, 255).to(torch.uint8)
