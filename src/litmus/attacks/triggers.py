"""The paper's random triggers: small patches of binary or coloured pixels, drawn from a seed."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.errors import RecipeError
from litmus.schema import STRICT

__all__ = ["Trigger", "TriggerKind"]

TriggerKind = Literal["binary", "colour"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Trigger:
    """The trigger number `index` of its kind in the set that `seed` draws (paper, Figure 2).

    A binary trigger has black and white pixels, a colour one any 8-bit colour in each pixel.
    """

    kind: TriggerKind = "binary"
    index: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=1, le=64)] = 5
    seed: int = 0

    @property
    def id(self) -> str:
        """A short name: `binary-3`; set and size are added where they are not the default."""
        extra = [f"s{self.size}"] * (self.size != 5) + [f"set{self.seed}"] * (self.seed != 0)
        return "-".join([self.kind, str(self.index), *extra])

    def pixels(self, channels: int) -> torch.Tensor:
        """Return the trigger as uint8 (channels, size, size).

        Drawn from SHAKE-256, so that no library's random stream can change it. Raises
        RecipeError for a colour trigger on grey images.
        """
        if self.kind == "colour" and channels != 3:
            raise RecipeError("colour triggers need colour images", expected=3, got=channels)
        planes = 3 if self.kind == "colour" else 1
        count = planes * self.size**2
        name = f"litmus trigger {self.seed} {self.kind} {self.index} {self.size}"
        drawn = np.frombuffer(hashlib.shake_256(name.encode()).digest(count), dtype=np.uint8)
        if self.kind == "binary":
            drawn = (drawn & 1).astype(np.uint8) * np.uint8(255)
        square = torch.from_numpy(drawn.copy()).reshape(planes, self.size, self.size)
        return square.expand(channels, -1, -1).contiguous()
