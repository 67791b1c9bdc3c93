"""One pixel or a few, the same in every image: the smallest trigger there is (Gu et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.drawn import DrawnAttack, Effect
from litmus.errors import RecipeError
from litmus.schema import STRICT
from litmus.shake import drawn_bytes, drawn_numbers

__all__ = ["Pixels"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pixels(DrawnAttack):
    """Sets `count` pixels, anywhere in the image, to extreme colours.

    Grey images get white, colour images a corner of the colour cube other than black, drawn for
    each pixel by itself. Places and colours are drawn from `index`; they depend on the image's
    shape too.
    """

    count: Annotated[int, Field(ge=1, le=16)] = 1

    letters: ClassVar[Mapping[str, str]] = {"n": "count"}

    @property
    def stem(self) -> str:
        """The attack's name."""
        return "pixels"

    def places(self, height: int, width: int) -> torch.Tensor:
        """Return (row, column) of each pixel, all different: int64 (count, 2)."""
        if self.count > height * width:
            raise RecipeError(
                "more pixels than the image has", expected=height * width, got=self.count
            )
        order = drawn_numbers(f"{self.stream} places", height * width).argsort(kind="stable")
        return torch.from_numpy(np.stack(np.divmod(order[: self.count], width), axis=1))

    def colours(self, channels: int) -> torch.Tensor:
        """Return the colour of each pixel: uint8 (count, channels), all 0 or 255, none black."""
        drawn = torch.from_numpy(drawn_bytes(f"{self.stream} colours", self.count))
        corner = 1 + drawn.int() % (2**channels - 1)
        bits = corner[:, None] >> torch.arange(channels) & 1
        return torch.where(bits == 1, 255, 0).to(torch.uint8)

    def effect(self, channels: int, height: int, width: int) -> Effect:
        """Return the painting of the pixels."""
        rows, columns = self.places(height, width).T
        colours = self.colours(channels).T

        def paint(images: torch.Tensor) -> torch.Tensor:
            stamped = images.clone()
            stamped[:, :, rows, columns] = colours
            return stamped

        return paint
