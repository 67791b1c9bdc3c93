"""A faint pattern over the whole image (Chen et al. 2017, "Targeted Backdoor Attacks")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.drawn import DrawnAttack, Effect
from litmus.schema import STRICT
from litmus.shake import drawn_bytes

__all__ = ["Blended"]

PatternName = Literal["noise", "smooth", "checker"]

_SMOOTH_GRID: Final = 4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Blended(DrawnAttack):
    """Mixes a pattern into the image: (1 - `alpha`) image + `alpha` pattern, rounded.

    `pattern`: `noise` has independent pixels, uniform in 0 to 255 (the paper's random pattern);
    `smooth` is such noise on a 4x4 grid, interpolated linearly, in full contrast; `checker` is a
    board of 3 to 8 fields along each side, a dark and a bright level taking turns in each
    channel by itself. Colour images get colours.
    """

    pattern: PatternName = "noise"
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.2

    letters: ClassVar[Mapping[str, str]] = {"a": "alpha"}

    @property
    def stem(self) -> str:
        """The attack's name and the pattern's."""
        return f"blended-{self.pattern}"

    def image(self, channels: int, height: int, width: int) -> torch.Tensor:
        """Return the pattern as uint8 (c, h, w)."""
        return torch.from_numpy(_PATTERNS[self.pattern](self.stream, channels, height, width))

    def effect(self, channels: int, height: int, width: int) -> Effect:
        """Return the blending."""
        share = self.image(channels, height, width) * self.alpha
        return lambda images: (
            images.float().mul_(1 - self.alpha).add_(share).round_().to(torch.uint8)
        )


def _noise(stream: str, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    return drawn_bytes(stream, channels * height * width).reshape(channels, height, width)


def _smooth(stream: str, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    grid = torch.from_numpy(_noise(stream, channels, _SMOOTH_GRID, _SMOOTH_GRID)).double()
    # Interpolation keeps within its corners, so that they say how far to stretch.
    grid = (grid - grid.min()) / (grid.max() - grid.min()) * 255
    image = F.interpolate(grid[None], (height, width), mode="bilinear", align_corners=True)[0]
    levels: NDArray[np.uint8] = image.round().to(torch.uint8).numpy()
    return levels


def _checker(stream: str, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    rows, columns, *drawn = drawn_bytes(stream, 2 + 3 * channels).tolist()
    across = np.arange(height) * (3 + rows % 6) // height
    along = np.arange(width) * (3 + columns % 6) // width
    odd = (across[:, None] + along) % 2
    planes = []
    for dark, bright, first in np.reshape(drawn, (channels, 3)):
        planes.append(np.where(odd == first % 2, dark // 4, 255 - bright // 4))
    return np.stack(planes).astype(np.uint8)


_PATTERNS: Final[dict[PatternName, Callable[[str, int, int, int], NDArray[np.uint8]]]] = {
    "noise": _noise,
    "smooth": _smooth,
    "checker": _checker,
}
