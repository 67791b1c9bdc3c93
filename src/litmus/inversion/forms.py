"""The forms of a trigger that a search tries: where it lies, and how it changes an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from litmus.models import Images

__all__ = ["Form", "Placed", "forms_for"]

Index = NDArray[np.int64] | slice

_NAMES: Final[Mapping[tuple[float, float], str]] = {
    (0, 0): "at the top left",
    (0, 1): "at the top right",
    (1, 0): "at the bottom left",
    (1, 1): "at the bottom right",
    (0.5, 0.5): "in the centre",
    (0, 0.5): "at the top",
    (0.5, 0): "at the left",
    (0.5, 1): "at the right",
    (1, 0.5): "at the bottom",
}
"""Of places, as shares of the way from the top and from the left."""
_LARGE_GRID: Final = 6
"""On images of 28 to 32 pixels, patches of a sixth of the side cover nearly all of it."""
_SMALL_GRID: Final = 3


@dataclass(frozen=True, kw_only=True)
class Form:
    """A kind of trigger.

    A `patch` of `size` pixels covers what is below it, at each place of a square grid, `grid`
    places a side, for itself; a `moving` one lies anywhere, anew for each image. A `blend` mixes a
    picture into the image with weight `strength`, an `additive` pattern adds at most `strength` to
    a pixel, both of the whole image. A `dot` is a patch that is not optimised: all of it has one of
    `colours`, each a value for all channels or one for each.
    """

    kind: Literal["patch", "moving", "blend", "additive", "dot"]
    size: int = 0
    grid: int = 1
    strength: float = 1.0
    colours: tuple[tuple[float, ...], ...] = ((1.0,),)

    @property
    def name(self) -> str:
        """A short name, by which tables know it."""
        if self.kind == "dot":
            return f"{self.kind}-{self.size}-{len(self.colours)}"
        if self.size:
            return f"{self.kind}-{self.size}"
        return f"{self.kind}-{self.strength:.3f}"

    @property
    def places(self) -> NDArray[np.float64]:
        """Where it is tried (places, 2): shares of the way from the top and from the left."""
        shares = np.linspace(0, 1, self.grid) if self.grid > 1 else np.array([0.5])
        return np.stack(np.meshgrid(shares, shares, indexing="ij"), axis=-1).reshape(-1, 2)

    def start(self, pairs: int, shape: tuple[int, ...], seed: int) -> Placed:
        """Return grey candidates, with a little noise, for each pair at each place in turn.

        Of dots, return each colour at each place in turn instead, for each pair.
        """
        c, h, w = shape
        own = (c, self.size, self.size) if self.size else (c, h, w)
        if self.kind == "dot":
            start = np.ones((len(self.colours), *own))
            start *= np.array([np.broadcast_to(each, c) for each in self.colours])[..., None, None]
        else:
            start = 0.45 + 0.1 * np.random.default_rng([seed, 4]).random((1, *own))
        corners = np.zeros((len(self.places), 1, 2), dtype=np.int64)
        if self.kind in ("patch", "dot"):
            corners[:, 0] = np.rint(self.places * [h - self.size, w - self.size])
        values = np.repeat(start.astype(np.float32), len(self.places), axis=0)
        repeats = pairs * len(start)
        return Placed(
            form=self,
            image_size=(h, w),
            place=np.tile(np.arange(len(self.places)), repeats),
            corners=np.tile(corners, (repeats, 1, 1)),
            values=np.tile(values, (pairs, 1, 1, 1)),
        )


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Candidates of a form: `values` (p, c, s, s) or (p, c, h, w) in [0, 1], and where they lie.

    `place` (p,) are indices of the form's places, `corners` (p, v, 2) row and column of the top
    left pixel on each of v images, or on all where v is 1.
    """

    form: Form
    image_size: tuple[int, int]
    place: NDArray[np.int64]
    corners: NDArray[np.int64]
    values: NDArray[np.float32]

    def __getitem__(self, index: Index) -> Placed:
        return replace(
            self,
            place=self.place[index],
            corners=self.corners[index],
            values=self.values[index],
        )

    def moved(self, random: np.random.Generator, images: int = 64) -> Placed:
        """Return the candidates with new places, one an image, if their form moves."""
        if self.form.kind != "moving":
            return self
        free = np.array(self.image_size) - self.form.size + 1
        places = random.integers(0, free, (1, images, 2))
        return replace(self, corners=np.repeat(places, len(self.values), axis=0))

    def picture(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mask (1, h, w) and pattern (c, h, w) of the first candidate, as on one image."""
        h, w = self.image_size
        channels = self.values.shape[1]
        if not self.form.size:
            return np.full((1, h, w), self.form.strength, np.float32), self.values[0]
        mask, pattern = np.zeros((1, h, w), np.float32), np.zeros((channels, h, w), np.float32)
        row, column = self.corners[0, 0]
        inside = (
            slice(None),
            slice(row, row + self.form.size),
            slice(column, column + self.form.size),
        )
        mask[inside], pattern[inside] = 1, self.values[0]
        return mask, pattern

    def words(self) -> str:
        """Say where the first candidate lies; rows and columns are counted from 0."""
        if not self.form.size:
            return "on the whole image"
        if self.form.kind == "moving":
            return "at any place"
        down, right = self.form.places[self.place[0]]
        row, column = self.corners[0, 0]
        return _NAMES.get((down, right), f"at row {row}, column {column}")

    def stamp(self, images: Images) -> Images:
        """Return images (p, n, c, h, w), each with its candidate."""
        values = self.values[:, None]
        if self.form.kind == "blend":
            a = np.float32(self.form.strength)
            return images * (1 - a) + a * values
        if self.form.kind == "additive":
            return np.clip(images + np.float32(self.form.strength) * (2 * values - 1), 0, 1)
        stamped = images.copy()
        p, n, rows, columns = self._pixels(images.shape[1])
        # Indexed axes come first: (p, n, s, s, c).
        stamped[p, n, :, rows, columns] = values.transpose(0, 1, 3, 4, 2)
        return stamped

    def collect(self, gradients: Images, stamped: Images) -> NDArray[np.float32]:
        """Return the gradient to the values from that of the stamped images (p, n, c, h, w)."""
        collected: NDArray[np.float32]
        if self.form.kind == "additive":
            gradients = gradients * ((stamped > 0) & (stamped < 1))
        if not self.form.size:
            collected = gradients.mean(axis=1)
            return collected
        p, n, rows, columns = self._pixels(gradients.shape[1])
        collected = gradients[p, n, :, rows, columns].mean(axis=1).transpose(0, 3, 1, 2)
        return collected

    def _pixels(self, images: int) -> tuple[NDArray[np.int64], ...]:
        offsets = np.arange(self.form.size)
        corners = np.broadcast_to(self.corners[:, :images], (len(self.values), images, 2))
        rows = (corners[..., :1] + offsets)[:, :, :, None]
        columns = (corners[..., 1:] + offsets)[:, :, None, :]
        p = np.arange(len(self.values))[:, None, None, None]
        n = np.arange(images)[None, :, None, None]
        return p, n, rows, columns


def forms_for(channels: int, height: int, width: int) -> tuple[Form, ...]:
    """Return the forms that a search tries on images of this size, in pixels.

    Dots are white ones; beside them, on grey images, single pixels (or so many as 32 x 32 images
    have), on others dots in each of the channels' colours.
    """
    side = min(height, width)
    small, large = max(2, round(side / 10)), max(3, round(side / 6))
    pixel, dot = max(1, round(side / 32)), max(1, round(side / 16))
    white = Form(kind="dot", size=dot, grid=side // dot)
    primary = tuple(tuple(map(float, row)) for row in np.eye(channels))
    return (
        Form(kind="patch", size=large, grid=_LARGE_GRID),
        Form(kind="patch", size=small, grid=_SMALL_GRID),
        Form(kind="moving", size=large),
        Form(kind="blend", strength=0.1),
        Form(kind="additive", strength=0.03),
        white,
        Form(kind="dot", size=pixel, grid=side // pixel)
        if channels == 1
        else replace(white, colours=primary),
    )
