"""A model of another input size than the detector's, fed with the detector's images resized."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import UnsupportedModelError
from litmus.formats.preprocessing import Preprocessing
from litmus.models import Gradients, Images, InputSpec, LastLayer, Model, Objective, Outputs

__all__ = ["ResizedModel", "may_resize", "resize"]

_PIXELS_AT_ONCE: Final = 2**24
"""Values of a batch after resizing: 64 MiB."""


class ResizedModel:
    """A model that takes images of `input_spec`, though the one inside has another size.

    The images' sides are made those of `own_spec`, the spec of the model inside. It gives the last
    layer where the model inside does, and no gradients.
    """

    def __init__(self, model: Model, input_spec: InputSpec) -> None:
        self._model = model
        self.input_spec, self.own_spec = input_spec, model.input_spec
        self.classes: tuple[str, ...] = getattr(model, "classes", ())

    @property
    def notes(self) -> list[str]:
        """What the model inside says, and that images were resized."""
        before, after = (f"{s.height}x{s.width}" for s in (self.input_spec, self.own_spec))
        resized = (
            f"the detector's {before} images were resized to the model's {after}: it is not "
            "calibrated at that size, so that the verdict is at most inconclusive"
        )
        return [*getattr(self._model, "notes", ()), resized]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How the model inside is fed; None where there is no choice."""
        return getattr(self._model, "preprocessing", None)

    def with_preprocessing(self, preprocessing: Preprocessing) -> ResizedModel:
        """Return the same with the model inside fed otherwise."""
        fed: Model = self._model.with_preprocessing(preprocessing)  # type: ignore[attr-defined]
        return ResizedModel(fed, self.input_spec)

    @property
    def outputs(self) -> Outputs:
        """What the model inside returns."""
        return self._model.outputs

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the outputs (n, k) for images (n, c, h, w) of `input_spec`."""
        _, height, width = self.own_spec.image_shape
        count = max(1, _PIXELS_AT_ONCE // (self.own_spec.channels * height * width))
        parts = [images[start : start + count] for start in range(0, len(images), count)]
        return np.concatenate([self._model(resize(part, height, width)) for part in parts])

    def gradients(self) -> Gradients:
        """Return the gradients to the images before resizing."""
        ask = getattr(self._model, "gradients", None)
        if ask is None:
            raise UnsupportedModelError("the model has no gradients")
        return _ResizedGradients(ask(), self.input_spec)

    def last_layer(self) -> LastLayer:
        """Return the inner model's; raises UnsupportedModelError where it gives none."""
        ask = getattr(self._model, "last_layer", None)
        if ask is None:
            raise UnsupportedModelError("the model does not give its last layer")
        layer: LastLayer = ask()
        return layer


class _ResizedGradients:
    def __init__(self, gradients: Gradients, input_spec: InputSpec) -> None:
        self._gradients, self.input_spec = gradients, input_spec

    def logits(self, images: Images) -> NDArray[np.float32]:
        return self._gradients.logits(self._there(images))

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        logits, found = self._gradients.descend(self._there(images), targets, objective)
        return logits, self._back(found)

    def _there(self, images: Images) -> Images:
        _, height, width = self._gradients.input_spec.image_shape
        return resize(images, height, width)

    def _back(self, gradients: Images) -> Images:
        """Resizing is linear: its transpose."""
        (_, h, w), (_, own_h, own_w) = (
            self.input_spec.image_shape,
            self._gradients.input_spec.image_shape,
        )
        rows, columns = _weights(h, own_h), _weights(w, own_w)
        back: Images = (rows.T @ gradients @ columns).astype(np.float32)
        return back


def may_resize(own: InputSpec, wanted: InputSpec) -> bool:
    """Return whether two specs differ in height and width alone, if at all."""
    return (own.channels, own.num_classes) == (wanted.channels, wanted.num_classes)


def resize(images: Images, height: int, width: int) -> Images:
    """Return images (n, c, h, w) of another height and width, float32.

    A side that shrinks is averaged over areas, one that grows is interpolated linearly between
    the pixels' centres (as torch's `interpolate` with `align_corners=False`).
    """
    rows, columns = _weights(images.shape[2], height), _weights(images.shape[3], width)
    resized: Images = (rows @ images @ columns.T).astype(np.float32)
    return resized


@cache
def _weights(before: int, after: int) -> NDArray[np.float32]:
    """Return (after, before): how much each new pixel takes of each old one; rows sum to 1."""
    scale = before / after
    if after <= before:
        edges = np.arange(after + 1) * scale
        low = np.maximum(edges[:-1, None], np.arange(before))
        high = np.minimum(edges[1:, None], np.arange(before) + 1)
        shares: NDArray[np.float32] = (np.maximum(high - low, 0) / scale).astype(np.float32)
        return shares
    centres = np.clip((np.arange(after) + 0.5) * scale - 0.5, 0, before - 1)
    near = np.maximum(1 - np.abs(centres[:, None] - np.arange(before)), 0)
    weights: NDArray[np.float32] = near.astype(np.float32)
    return weights
