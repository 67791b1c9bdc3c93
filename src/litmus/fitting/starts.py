"""How patterns begin: as noise, faint on a background, or as clouds."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from litmus.errors import UsageError
from litmus.fitting.settings import PatternSettings
from litmus.models import InputSpec
from litmus.seeds import torch_generator

__all__ = ["starting_patterns"]

_COARSE: Final = 4
"""Random numbers along each side of a pattern of low frequencies."""


def starting_patterns(
    input_spec: InputSpec,
    settings: PatternSettings,
    seed: int,
    background: NDArray[np.float32] | None,
) -> torch.Tensor:
    """Return the patterns (m, c, h, w) in [0, 1] that a fit begins with.

    Random pixels are integers 0..255 over 255. Raises UsageError where a start on the
    `background` (c,) lacks it.
    """
    channels, *size = input_spec.image_shape
    coarse = settings.start == "low_frequency"
    shape = (settings.num_patterns, channels, *([_COARSE, _COARSE] if coarse else size))
    drawn = torch.randint(0, 256, shape, generator=torch_generator(seed, "patterns")) / 255
    if coarse:
        return F.interpolate(drawn, size=tuple(size), mode="bicubic").clamp(0, 1)
    if settings.start == "noise":
        return drawn
    if background is None:
        raise UsageError("start = background needs the data set's background")
    noise = (2 * drawn - 1) * settings.start_amplitude
    return (torch.from_numpy(background)[:, None, None] + noise).clamp(0, 1)
