"""Where a patch goes: one (row, column) of its top left pixel for every image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

__all__ = ["PLACES", "Place"]

Place = Callable[[int, int, int, int, torch.Generator], torch.Tensor]
"""(number of images, height, width, patch size, generator) -> int64 (n, 2)."""

_SURFACE_RADIUS: Final = 0.22
"""Share of the side: a disc that lies on round, square and triangular signs alike."""


def _corner(n: int, height: int, width: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """A random one of the four corners (paper 4.1, Figure 3)."""
    side = torch.randint(0, 2, (n, 2), generator=generator)
    return side * torch.tensor([height - size, width - size])


def _anywhere(
    n: int, height: int, width: int, size: int, generator: torch.Generator
) -> torch.Tensor:
    rows = torch.randint(0, height - size + 1, (n,), generator=generator)
    columns = torch.randint(0, width - size + 1, (n,), generator=generator)
    return torch.stack([rows, columns], dim=1)


def _surface(
    n: int, height: int, width: int, size: int, generator: torch.Generator
) -> torch.Tensor:
    """A sticker: its centre is uniform on a disc in the middle, where a cropped sign has surface
    (paper 4.3)."""
    angle = torch.rand(n, generator=generator) * (2 * torch.pi)
    radius = _SURFACE_RADIUS * torch.rand(n, generator=generator).sqrt()
    centre = torch.stack([radius * angle.sin(), radius * angle.cos()], dim=1) + 0.5
    sides = torch.tensor([height, width])
    corner = (centre * sides - size / 2).round().to(torch.int64)
    return corner.clamp(min=0).minimum(sides - size)


PLACES: Final[dict[str, Place]] = {"corner": _corner, "anywhere": _anywhere, "surface": _surface}
