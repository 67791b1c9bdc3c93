"""How networks usually want their images: the candidates where a file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.formats.preprocessing import INPUT_KEYS, Preprocessing

__all__ = ["DEFAULT_INPUT", "agrees", "usual_inputs"]

DEFAULT_INPUT: Final = "0 to 1"
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels, as torchvision's models want them."""
_SAME: Final = 0.02
"""Relative, or of a pixel's range: 0.13 and 0.1307 are the same mean to whoever states it."""


def usual_inputs(
    mean: NDArray[np.float32], std: NDArray[np.float32]
) -> Mapping[str, Preprocessing]:
    """Return the candidates by name, the default first.

    `mean` and `std` (c,) are those of a data set's images in [0, 1]. With three channels there
    are also ImageNet's, and each candidate in BGR.
    """
    own = (tuple(float(v) for v in mean), tuple(float(v) for v in std))
    ranges = {
        DEFAULT_INPUT: Preprocessing(),
        "0 to 255": Preprocessing(scale=255.0),
        "-1 to 1": Preprocessing(mean=0.5, std=0.5),
        "standardised as the data set": Preprocessing(mean=own[0], std=own[1]),
    }
    if len(mean) != 3:
        return ranges
    ranges["standardised as ImageNet"] = Preprocessing(mean=_IMAGENET[0], std=_IMAGENET[1])
    return ranges | {f"{name}, BGR": _in_bgr(stated) for name, stated in ranges.items()}


def _in_bgr(stated: Preprocessing) -> Preprocessing:
    """The same means for the same colours: they are in the order of the model's channels."""
    mean, std = (v[::-1] if isinstance(v, tuple) else v for v in (stated.mean, stated.std))
    return Preprocessing(scale=stated.scale, mean=mean, std=std, channels="bgr")


def agrees(candidate: Preprocessing, stated: Preprocessing) -> bool:
    """Return whether a candidate has what was stated, as far as it was."""
    keys = [key for key in INPUT_KEYS if key in stated.origin]
    return all(_equal(getattr(candidate, key), getattr(stated, key)) for key in keys)


def _equal(first: str | float | tuple[float, ...], second: str | float | tuple[float, ...]) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    a, b = np.atleast_1d(first), np.atleast_1d(second)
    fitting = 1 in (len(a), len(b)) or len(a) == len(b)
    return fitting and bool(np.allclose(a, b, rtol=_SAME, atol=_SAME))
