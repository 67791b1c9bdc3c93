"""A slight warp of the whole image (Nguyen and Tran 2021, "WaNet")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.drawn import DrawnAttack, Effect
from litmus.schema import STRICT
from litmus.shake import drawn_numbers

__all__ = ["WaNet"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WaNet(DrawnAttack):
    """Warps every image by one smooth field of small displacements.

    `grid` x `grid` control points (the paper's k) get displacements uniform in [-1, 1], which
    are divided by their mean size and interpolated bicubically. `strength` is the paper's s as
    its authors' code has it: the mean displacement of a control point along each axis is
    `strength` / side of an image that is 2 wide, so that 0.5 is about a quarter of a pixel
    whatever the image's size. The paper's noise mode (further images, warped at random, that
    keep their label) is no part of this: it is about training, not about the trigger.
    """

    grid: Annotated[int, Field(ge=2, le=64)] = 4
    strength: Annotated[float, Field(gt=0)] = 0.5

    letters: ClassVar[Mapping[str, str]] = {"k": "grid", "s": "strength"}

    @property
    def stem(self) -> str:
        """The attack's name."""
        return "wanet"

    def sources(self, height: int, width: int) -> torch.Tensor:
        """Return where each pixel is taken from: float32 (h, w, 2), x and y in [-1, 1].

        Minus one and one are the centres of the first and the last pixel.
        """
        drawn = drawn_numbers(self.stream, 2 * self.grid**2)
        control = torch.from_numpy(drawn).reshape(1, 2, self.grid, self.grid) * 2 - 1
        control = control / control.abs().mean()
        shift = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
        sides = torch.tensor([width, height], dtype=torch.float64)
        shift = self.strength * shift[0].permute(1, 2, 0) / sides
        rows = torch.linspace(-1, 1, height, dtype=torch.float64)
        columns = torch.linspace(-1, 1, width, dtype=torch.float64)
        identity = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)
        return (identity + shift).clamp(-1, 1).float()

    def effect(self, channels: int, height: int, width: int) -> Effect:
        """Return the warp."""
        sources = self.sources(height, width)

        def warp(images: torch.Tensor) -> torch.Tensor:
            each = sources.expand(len(images), -1, -1, -1)
            warped = F.grid_sample(images.float(), each, mode="bilinear", align_corners=True)
            return warped.round_().to(torch.uint8)

        return warp
