"""The paper's attack (4.1 to 4.3): a small patch, a sticker, anywhere that is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.base import Attack
from litmus.attacks.places import PLACES
from litmus.attacks.triggers import Trigger
from litmus.errors import RecipeError
from litmus.schema import STRICT
from litmus.shake import drawn_numbers

__all__ = ["Patch"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Patch(Attack):
    """Stamps a trigger over the image's pixels (Gu et al. 2017, "BadNets").

    `place`: `corner`, `anywhere` and `surface` draw a new place for every image; `fixed` is at
    (`row`, `column`) of the top left pixel, negative ones counting from the far edge, or without
    them at one place that `trigger` draws for all images. `alpha` is the patch's share in the
    pixels that it covers; None is an opaque patch, as 1 is. Where there are `others`, all of the
    same size, each image gets one of them or `trigger`, drawn anew.
    """

    trigger: Trigger
    place: Literal["corner", "anywhere", "surface", "fixed"] = "corner"
    row: int | None = None
    column: int | None = None
    alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    others: Annotated[tuple[Trigger, ...], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.row is not None, self.column is not None)
        if given != (False, False) and (given != (True, True) or self.place != "fixed"):
            raise ValueError("row and column go with place 'fixed', both of them, and only with it")
        sizes = sorted({trigger.size for trigger in self.triggers})
        if len(sizes) > 1:
            raise ValueError(f"all triggers of a patch must have one size, got {sizes}")
        names = [trigger.id for trigger in self.triggers]
        if len(set(names)) < len(names):
            raise ValueError(f"the triggers of a patch must differ, got {', '.join(names)}")

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """All triggers of which an image gets one."""
        return (self.trigger, *(self.others or ()))

    @property
    def trigger_id(self) -> str:
        """The trigger's own name; with more of them or `alpha`, as `binary-3+binary-4-a0.2`."""
        names = "+".join(trigger.id for trigger in self.triggers)
        return names if self.alpha in {None, 1.0} else f"{names}-a{self.alpha}"

    def stamp(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return uint8 images (n, c, h, w), each with the patch at its place."""
        n, _, height, width = images.shape
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
        covered = stamped[which, :, rows, columns]
        stamped[which, :, rows, columns] = self._painted(covered, generator)
        return stamped

    def _painted(self, covered: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the patches over what they cover, both uint8 (n, size, size, c)."""
        n, channels = len(covered), covered.shape[3]
        chosen = torch.zeros(n, dtype=torch.int64)
        if self.others is not None:  # else nothing is drawn, as ever
            chosen = torch.randint(0, len(self.triggers), (n,), generator=generator)
        pixels = torch.stack([trigger.pixels(channels) for trigger in self.triggers])
        masks = torch.stack([trigger.mask() for trigger in self.triggers])
        paint = pixels.permute(0, 2, 3, 1)[chosen]
        if self.alpha is not None:
            mixed = covered.float().mul_(1 - self.alpha).add_(paint * self.alpha)
            paint = mixed.round_().to(torch.uint8)
        return torch.where(masks[chosen, :, :, None], paint, covered)

    def _places(self, n: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
        if self.place != "fixed":
            return PLACES[self.place](n, height, width, self.trigger.size, generator)
        free = [height - self.trigger.size, width - self.trigger.size]
        if self.row is None or self.column is None:
            drawn = drawn_numbers(f"litmus place {self.trigger.id}", 2).tolist()
            corner = [int(share * (most + 1)) for share, most in zip(drawn, free, strict=True)]
            return torch.tensor([corner]).expand(n, 2)
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
