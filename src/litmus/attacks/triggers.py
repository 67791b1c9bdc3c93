"""Small patches of pixels drawn from a seed: the paper's random triggers and plainer ones."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.shapes import SHAPES, SMALLEST, TriggerShape
from litmus.errors import RecipeError
from litmus.schema import ADDED_LATER, STRICT
from litmus.shake import drawn_bytes

__all__ = ["Trigger", "TriggerKind"]

TriggerKind = Literal["binary", "colour", "white", "uniform"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trigger:
    """The trigger number `index` of its kind in the set that `seed` draws (paper, Figure 2).

    A binary trigger has black and white pixels, a colour one any 8-bit colour in each pixel, a
    uniform one the same colour in all of them (on grey images a bright grey). All white ones
    are alike: their index draws nothing but a fixed place. Pixels of the square that lie outside
    of `shape` leave the image as it is; None is the whole square.
    """

    kind: TriggerKind = "binary"
    index: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=1, le=64)] = 5
    seed: int = 0
    shape: TriggerShape | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        if self.shape not in {None, "square"} and self.size < SMALLEST:
            raise ValueError(f"a {self.shape} needs size {SMALLEST} or more, got {self.size}")

    @property
    def id(self) -> str:
        """A short name: `binary-3`; what is not the default is added, as in `binary-3-s7-set2`."""
        extra = [f"s{self.size}"] * (self.size != 5) + [f"set{self.seed}"] * (self.seed != 0)
        extra += [self.shape] if self.shape is not None and self.shape != "square" else []
        return "-".join([self.kind, str(self.index), *extra])

    def pixels(self, channels: int) -> torch.Tensor:
        """Return the trigger as uint8 (channels, size, size), as if it were a whole square.

        Drawn from SHAKE-256, so that no library's random stream can change it. Raises
        RecipeError for a colour trigger on grey images.
        """
        if self.kind == "colour" and channels != 3:
            raise RecipeError("colour triggers need colour images", expected=3, got=channels)
        planes = 3 if self.kind == "colour" else 1
        name = f"litmus trigger {self.seed} {self.kind} {self.index} {self.size}"
        if self.kind == "uniform":
            colour = torch.from_numpy(drawn_bytes(name, channels))
            if channels == 1:
                colour = 128 + colour // 2
            return colour[:, None, None].repeat(1, self.size, self.size)
        drawn = drawn_bytes(name, planes * self.size**2)
        if self.kind == "binary":
            drawn = (drawn & np.uint8(1)) * np.uint8(255)
        elif self.kind == "white":
            drawn[:] = 255
        square = torch.from_numpy(drawn).reshape(planes, self.size, self.size)
        return square.expand(channels, -1, -1).contiguous()

    def mask(self) -> torch.Tensor:
        """Return which pixels are painted: bool (size, size)."""
        return SHAPES[self.shape or "square"](self.size)
