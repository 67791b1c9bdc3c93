"""Generic triggers, many of each kind, to put on images of any shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.models import Images
from litmus.shake import drawn_numbers

__all__ = ["FAMILIES", "Stamp", "stamp_bank", "stamped"]

_LARGEST_PATCH: Final = 0.28
"""Of the image's shorter side."""
_ALPHA: Final = (0.15, 0.4)
_DELTA: Final = (20 / 255, 80 / 255)
_MOST_PIXELS: Final = (1, 2, 4, 8)
_MOST_PERIODS: Final = 10
_COARSE: Final = 4
"""Points along each side of the grid that a smooth pattern passes through."""
_STRAIGHT: Final = 0.7
"""Share of waves that run along an axis or a diagonal."""


@dataclass(frozen=True, eq=False)
class Stamp:
    """``clip(keep * image + add, 0, 1)``, with keep (1, h, w) or (1, 1, 1) and add (c, h, w)."""

    family: str
    keep: NDArray[np.float32]
    add: NDArray[np.float32]

    def on(self, images: Images) -> Images:
        """Return the images (n, c, h, w) with the stamp on each."""
        put: Images = np.clip(self.keep * images + self.add, 0, 1)
        return put


class _Draw:
    """The numbers of one stamp, each by its own name: another one draws none of them."""

    def __init__(self, family: str, index: int) -> None:
        self._name = f"litmus stamp {family} {index}"

    def numbers(self, what: str, *shape: int) -> NDArray[np.float64]:
        """Return uniform numbers in [0, 1) of a shape."""
        return drawn_numbers(f"{self._name} {what}", int(np.prod(shape))).reshape(shape)

    def between(self, what: str, low: float, high: float) -> float:
        return float(low + (high - low) * self.numbers(what, 1)[0])

    def below(self, what: str, count: int) -> int:
        return int(count * self.numbers(what, 1)[0])

    def colour(self, channels: int) -> NDArray[np.float64]:
        """White, as triggers mostly are, or else a bright grey or a colour of the RGB cube."""
        if self.numbers("white", 1)[0] < 0.5:
            return np.ones((channels, 1, 1))
        if channels == 1:
            return np.full((1, 1, 1), self.between("grey", 0.4, 1.0))
        return np.rint(self.numbers("colour", channels, 1, 1))

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """A square of 2 pixels to a share of the image, anywhere in it."""
        side = 2 + self.below("size", max(1, round(_LARGEST_PATCH * min(height, width)) - 1))
        side = min(side, height, width)
        top, left = (
            self.below(what, edge - side + 1) for what, edge in (("y", height), ("x", width))
        )
        return slice(top, top + side), slice(left, left + side)


Shape = tuple[int, int, int]
Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The weight of a pattern in each pixel, (h, w) or (1, 1), and the pattern, (c, h, w)."""


def _uniform(draw: _Draw, shape: Shape) -> Drawn:
    weight = np.zeros(shape[1:])
    weight[draw.box(*shape[1:])] = 1
    return weight, np.broadcast_to(draw.colour(shape[0]), shape)


def _binary(draw: _Draw, shape: Shape) -> Drawn:
    weight = np.zeros(shape[1:])
    weight[draw.box(*shape[1:])] = 1
    planes = shape[0] if draw.below("in colour", 2) else 1
    pixels = np.rint(draw.numbers("pixels", planes, *shape[1:]))
    return weight, np.broadcast_to(pixels, shape)


def _pixels(draw: _Draw, shape: Shape) -> Drawn:
    count = _MOST_PIXELS[draw.below("count", len(_MOST_PIXELS))]
    rows, columns = (
        (draw.numbers(what, count) * edge).astype(int)
        for what, edge in (("y", shape[1]), ("x", shape[2]))
    )
    weight = np.zeros(shape[1:])
    weight[rows, columns] = 1
    return weight, np.broadcast_to(draw.colour(shape[0]), shape)


def _smooth(draw: _Draw, shape: Shape) -> Drawn:
    grid = draw.numbers("grid", shape[0], _COARSE, _COARSE)
    down, right = (_interpolation(edge) for edge in shape[1:])
    return _alpha(draw), down @ grid @ right.T


def _noise(draw: _Draw, shape: Shape) -> Drawn:
    return _alpha(draw), draw.numbers("pixels", *shape)


def _checker(draw: _Draw, shape: Shape) -> Drawn:
    edge = 1 + draw.below("edge", max(1, min(shape[1:]) // 5))
    down, right = (draw.below(what, 2 * edge) for what in ("y", "x"))
    rows, columns = (
        (np.arange(n) + by) // edge for n, by in zip(shape[1:], (down, right), strict=True)
    )
    board = (rows[:, None] + columns[None, :]) % 2
    return _alpha(draw), draw.colour(shape[0]) * board


def _wave(draw: _Draw, shape: Shape) -> Drawn:
    angle = np.pi * draw.between("angle", 0, 1)
    if draw.numbers("straight", 1)[0] < _STRAIGHT:
        angle = np.pi / 4 * draw.below("direction", 4)
    rows, columns = (np.arange(n)[:, None] / n for n in shape[1:])
    place = rows * np.sin(angle) + columns.T * np.cos(angle)
    periods = draw.between("periods", 1, _MOST_PERIODS)
    phase = 2 * np.pi * draw.between("phase", 0, 1) * draw.below("shifted", 2)
    wave = draw.between("delta", *_DELTA) * np.sin(2 * np.pi * periods * place + phase)
    return np.zeros((1, 1)), np.broadcast_to(wave, shape)


def _alpha(draw: _Draw) -> NDArray[np.float64]:
    return np.full((1, 1), draw.between("alpha", *_ALPHA))


def _interpolation(edge: int) -> NDArray[np.float64]:
    """Weights (edge, points) that draw lines through points spread over an edge."""
    place = np.linspace(0, _COARSE - 1, edge)[:, None]
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(place - np.arange(_COARSE)))
    return weights


FAMILIES: Final[Mapping[str, Callable[[_Draw, Shape], Drawn]]] = {
    "uniform": _uniform,
    "binary": _binary,
    "pixels": _pixels,
    "smooth": _smooth,
    "noise": _noise,
    "checker": _checker,
    "wave": _wave,
}
"""Patches of one colour and of random pixels, single pixels, patterns that are blended in, and
sinusoids that are added: the kinds of triggers that attacks are published with. Those of zoos are
drawn under other names."""


def stamp_bank(image_shape: Shape, counts: Mapping[str, int]) -> tuple[Stamp, ...]:
    """Return so many stamps of each family for images (c, h, w), the same ones at all times."""
    return _bank(image_shape, tuple(counts.items()))


@lru_cache(maxsize=4)
def _bank(shape: Shape, counts: tuple[tuple[str, int], ...]) -> tuple[Stamp, ...]:
    return tuple(_stamp(family, index, shape) for family, count in counts for index in range(count))


def _stamp(family: str, index: int, shape: Shape) -> Stamp:
    weight, pattern = FAMILIES[family](_Draw(family, index), shape)
    add = pattern if family == "wave" else weight * pattern
    return Stamp(family, (1 - weight[None]).astype(np.float32), add.astype(np.float32))


def stamped(bank: Sequence[Stamp], images: Images, *, most: int) -> Iterator[Images]:
    """Yield the images (s, c, h, w) with each stamp on all of them, in batches of t * s <= most.

    Where s alone is more, a batch has one stamp.
    """
    step = max(1, most // len(images))
    for start in range(0, len(bank), step):
        yield np.concatenate([stamp.on(images) for stamp in bank[start : start + step]])
