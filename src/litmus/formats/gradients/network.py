"""An ONNX classifier's gradients, both halves in one run of onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats.gradients import backward
from litmus.formats.gradients.forward import prepare
from litmus.formats.onnx_file import create_session, runtime_error, serialised
from litmus.formats.onnx_graph import FLOAT16
from litmus.formats.onnx_input import ImageInput
from litmus.models import Images, InputSpec, Objective, Outputs

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["TOLERANCE", "OnnxGradients"]

TOLERANCE: Final = 1e-3
"""How far outputs may be from the model's, as a share of the largest one (or of 0.1)."""
_HALF_TOLERANCE: Final = 2e-2
"""The same where the model computes in float16, and its gradients are taken in float32."""
_EXAMPLES: Final = 4
_BFLOAT16: Final = 16
# So steep that the softmax is 1 at the largest logit, the target's being out of the way.
_STEEP: Final = 1e20
_AWAY: Final = -1e37


class OnnxGradients:
    """A graph with its backward half, as `Gradients`; images (n, c, h, w) in [0, 1].

    Preprocessing, layout and channel order are inside; where the graph returns probabilities, their
    floored logarithms are the logits. `reference` is what the model returns for images. Raises
    UnsupportedModelError, naming the operator, where one has no gradient, where the outputs differ
    from the reference by more than `TOLERANCE`, and where the gradient is zero or no number;
    ModelError where the outputs are no numbers.
    """

    def __init__(
        self,
        model: ModelProto,
        image_input: ImageInput,
        outputs: Outputs,
        input_spec: InputSpec,
        reference: Callable[[Images], NDArray[Any]],
        where: object,
    ) -> None:
        self.input_spec = input_spec
        self._feed = replace(image_input, dtype="float32")
        self._where = where
        forward = prepare(model, image_input, outputs, where)
        self._result = forward.result
        self._data: bytes | None = serialised(forward.model, where)
        self._forward: Any = None
        self._prefix = forward.prefix
        whole = backward.differentiated(forward, where)
        self._session = create_session(serialised(whole, where), where)
        self._verify(reference, outputs, _HALF_TOLERANCE if _has_halves(model) else TOLERANCE)

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return the logits (n, k)."""
        if self._data is not None:
            self._forward, self._data = create_session(self._data, self._where), None
        found = [
            self._run(self._forward, [self._result], {self._feed.name: batch})[0][:count]
            for batch, count in self._feed.batches(images)
        ]
        logits: NDArray[np.float32] = np.concatenate(found)
        return logits

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        """Return logits (n, k), and each image's gradient of its own objective."""
        chosen = np.eye(self.input_spec.num_classes, dtype=np.float32)[targets]
        margin = objective == "margin"
        scale = np.asarray(_STEEP if margin else 1, np.float32)
        names = [self._prefix + part for part in (backward.LOGITS, backward.GRADIENT)]
        rows, gradients, start = [], [], 0
        for batch, count in self._feed.batches(images):
            # A batch of a fixed size is filled up.
            missing = ((0, len(batch) - count), (0, 0))
            one_hot = np.pad(chosen[start : start + count], missing)
            feed = {
                self._feed.name: batch,
                self._prefix + backward.ONE_HOT: one_hot,
                self._prefix + backward.SCALE: scale,
                self._prefix + backward.BIAS: one_hot * np.float32(_AWAY if margin else 0),
            }
            logits, gradient = self._run(self._session, names, feed)
            rows.append(logits[:count])
            gradients.append(gradient[:count])
            start += count
        return np.concatenate(rows), self._to_images(np.concatenate(gradients))

    def _to_images(self, gradients: NDArray[Any]) -> Images:
        """From the graph's input back to images in [0, 1]."""
        stated = self._feed.preprocessing
        if self._feed.layout == "nhwc":
            gradients = gradients.transpose(0, 3, 1, 2)
        factor = stated.scale / np.asarray(stated.std, np.float64).reshape(-1, 1, 1)
        if (factor != 1).any():
            gradients = gradients * factor.astype(np.float32)
        if stated.channels == "bgr":
            gradients = gradients[:, ::-1]
        return np.ascontiguousarray(gradients, dtype=np.float32)

    def _run(self, session: Any, names: list[str], feed: dict[str, Any]) -> Any:
        try:
            return session.run(names, feed)
        except MemoryError:
            raise
        except Exception as fault:
            raise runtime_error(fault, self._where) from fault

    def _verify(
        self, reference: Callable[[Images], NDArray[Any]], outputs: Outputs, tolerance: float
    ) -> None:
        images = _examples(self.input_spec.image_shape)
        expected = np.asarray(reference(images), dtype=np.float64)
        if not np.isfinite(expected).all():
            raise ModelError(
                "the model's outputs are not numbers", got="NaN or infinity", where=self._where
            )
        targets = np.arange(len(images)) % self.input_spec.num_classes
        logits, gradients = self.descend(images, targets)
        if not np.isfinite(gradients).all():
            raise UnsupportedModelError(
                "the gradients of its outputs are not numbers", where=self._where
            )
        if not gradients.any():
            raise UnsupportedModelError(
                "no gradient of its outputs reaches the image", where=self._where
            )
        found = np.exp(logits) if outputs == "probabilities" else logits
        limit = tolerance * max(0.1, float(np.abs(expected).max()))
        difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        if not difference <= limit:
            raise UnsupportedModelError(
                "with its gradients, the model answers otherwise",
                expected=f"{expected.shape}, within {limit:.2g} of its outputs",
                got=f"{difference:.2g} off" if np.isfinite(difference) else found.shape,
                where=self._where,
            )


def _examples(shape: tuple[int, int, int]) -> Images:
    """Images of bytes, so that an input of bytes is not rounded: dark ones and bright ones."""
    random = np.random.default_rng(0)
    tops = np.linspace(64, 255, _EXAMPLES).reshape(-1, 1, 1, 1)
    pixels = np.rint(random.random((_EXAMPLES, *shape)) * tops)
    return (pixels / 255).astype(np.float32)


def _has_halves(model: ModelProto) -> bool:
    types = {tensor.data_type for tensor in model.graph.initializer}
    return bool(types & {FLOAT16, _BFLOAT16})
