"""The paper's attack (4.1 to 4.3): a small opaque patch, a sticker, anywhere that is asked for."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass

from litmus.attacks.base import Attack
from litmus.attacks.places import PLACES
from litmus.attacks.triggers import Trigger
from litmus.errors import RecipeError
from litmus.schema import STRICT

__all__ = ["Patch"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Patch(Attack):
    """Stamps a trigger over the image's pixels (Gu et al. 2017, "BadNets").

    `place`: `corner`, `anywhere` and `surface` draw a new place for every image; `fixed` is at
    (`row`, `column`) of the top left pixel, negative ones counting from the far edge.
    """

    trigger: Trigger
    place: Literal["corner", "anywhere", "surface", "fixed"] = "corner"
    row: int | None = None
    column: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = self.place == "fixed"
        if (self.row is not None, self.column is not None) != (fixed, fixed):
            raise ValueError("row and column go with place 'fixed', and only with it")

    @property
    def trigger_id(self) -> str:
        """The trigger's own name."""
        return self.trigger.id

    def stamp(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return uint8 images (n, c, h, w), each with the patch at its place."""
        n, channels, height, width = images.shape
        size = self.trigger.size
        if size > min(height, width):
            raise RecipeError(
                "the trigger is larger than the image", expected=min(height, width), got=size
            )
        corner = self._places(n, height, width, generator)
        offsets = torch.arange(size)
        rows = (corner[:, :1] + offsets)[:, :, None]
        columns = (corner[:, 1:] + offsets)[:, None, :]
        stamped = images.clone()
        which = torch.arange(n)[:, None, None]
        # Advanced indexing puts the channel axis last.
        stamped[which, :, rows, columns] = self.trigger.pixels(channels).permute(1, 2, 0)
        return stamped

    def _places(self, n: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
        if self.place != "fixed":
            return PLACES[self.place](n, height, width, self.trigger.size, generator)
        assert self.row is not None
        assert self.column is not None
        corner = []
        for name, value, side in [("row", self.row, height), ("column", self.column, width)]:
            start = value if value >= 0 else side + value
            if not 0 <= start <= side - self.trigger.size:
                raise RecipeError(
                    f"the patch leaves the image at {name} {value}",
                    expected=f"0 to {side - self.trigger.size}",
                )
            corner.append(start)
        return torch.tensor([corner]).expand(n, 2)
