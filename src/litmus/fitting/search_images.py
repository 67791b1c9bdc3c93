"""Images for a trigger search: several a class, rich, and taken for it even if partly covered."""

from __future__ import annotations

from typing import Final

import numpy as np

from litmus.errors import ZooError
from litmus.fitting.references import ReferenceSettings, learn_references
from litmus.models import Images
from litmus.zoo import Zoo

__all__ = ["learn_search_images"]

_SETS: Final = 6
_MANY: Final = 20
"""Classes from which on fewer images of each are learned: they are kept in the detector's file."""
_MODELS: Final = 16
"""A set is learned on so many at most, and where there are enough of them on 4 at least."""
_FEW: Final = 4


def learn_search_images(zoo: Zoo, *, seed: int) -> Images:
    """Return images (k, r, c, h, w) that clean models of the training split agree on.

    Every set of r is learned on clean models of its own, where there are enough, and from a start
    of its own, so that the sets differ; a square of a third of the side of an image is covered in
    each step. Raises ZooError where there are fewer than two clean models.
    """
    clean = [entry for entry in zoo.split("train") if not entry.backdoored]
    if len(clean) < 2:
        raise ZooError("too few clean models", expected="at least 2", got=len(clean))
    spec = zoo.input_spec
    settings = ReferenceSettings(
        steps=200,
        faint_weight=0.0,
        tv_weight=1e-3,
        fading=0.3,
        shift=2,
        start=0.3,
        covering=max(1, min(spec.height, spec.width) // 3),
    )
    count = _SETS if spec.num_classes <= _MANY else _SETS - 2
    apart = min(count, max(1, len(clean) // _FEW))
    grey = np.full(spec.channels, 0.5, dtype=np.float32)
    sets = [
        learn_references(
            clean[each % apart :: apart][:_MODELS], grey, settings, seed=seed * _SETS + each
        )
        for each in range(count)
    ]
    return np.stack(sets, axis=1)
