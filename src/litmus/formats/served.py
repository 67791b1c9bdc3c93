"""Models that a server runs, asked over the Open Inference Protocol (KServe's v2 REST).

Triton, KServe, MLServer and others speak it. Only answers come over the wire, as JSON: there is no
file, so no weights and no gradients. The protocol is
https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError, ShapeError, UnsupportedModelError
from litmus.formats.inference_client import InferenceClient, RefusedError
from litmus.formats.onnx_graph import GraphInput
from litmus.formats.onnx_input import ImageInput
from litmus.formats.preprocessing import Preprocessing
from litmus.models import Images, InputSpec, Outputs, looks_like_probabilities

__all__ = ["ServedModel", "ServedTensors", "connect", "read_metadata"]

_TYPES: Final[Mapping[str, str]] = {
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "UINT8": "uint8",
}
_BATCH: Final = 32
"""Images a request, where the server takes any number; halved where it refuses that many."""
_VALUES: Final = 2**20
"""Pixels a request where images are large, each some 20 bytes of JSON."""
_MOST_CLASSES: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class ServedTensors:
    """What a server says of a model: its image input, and its outputs that may be the classes'.

    These are pairs of a name and the number of classes, None where it is left open;
    `num_outputs` counts others, too.
    """

    source: GraphInput
    class_outputs: tuple[tuple[str, int | None], ...]
    num_outputs: int

    def class_output(self, num_classes: int | None) -> tuple[str, int | None]:
        """Return the first with so many classes, or else the first."""
        exact = [each for each in self.class_outputs if each[1] == num_classes]
        return (exact or list(self.class_outputs))[0]


class ServedModel:
    """A classifier behind an address, ready to be asked; made by `connect`."""

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        client: InferenceClient,
        tensors: ServedTensors,
        image_input: ImageInput,
        num_classes: int | None = None,
    ) -> None:
        self._client, self._tensors, self._image_input = client, tensors, image_input
        channels, height, width = image_input.image_shape
        self._most = image_input.batch or _images_a_request(channels * height * width)
        stated = image_input.preprocessing.outputs
        self._outputs: Outputs | None = None if stated == "auto" else stated
        self._judged = ""
        self._output, declared = tensors.class_output(num_classes)
        # What a server leaves open, it may still not take.
        if declared is None or None in image_input.declared:
            declared = self._ask(np.zeros((1, channels, height, width), np.float32)).shape[1]
        num_classes = declared
        self.input_spec = InputSpec(
            channels=channels, height=height, width=width, num_classes=num_classes
        )

    @property
    def takes(self) -> str:
        """The shape as the server states it, ? where it leaves a size open."""
        sizes = "x".join(str(size or "?") for size in self._image_input.declared)
        return f"{sizes} -> {self.input_spec.num_classes} classes"

    def may_take(self, spec: InputSpec) -> bool:
        """Return whether the model, asked for with `expected=spec`, might be of that shape."""
        shape, image_input = spec.image_shape, self._image_input
        if len(self._tensors.class_outputs) > 1:
            return shape == image_input.image_shape or image_input.may_be(shape)
        return spec.num_classes == self.input_spec.num_classes and image_input.may_be(shape)

    @property
    def notes(self) -> list[str]:
        """What was assumed, how many images were sent so far, and that a token was."""
        sent, count = self._client, self._tensors.num_outputs
        return [
            *self._image_input.notes,
            *([f"of {count} outputs, {self._output!r} was read"] if count > 1 else []),
            *([self._judged] if self._judged else []),
            f"asked over the network: {sent.images} images in {sent.requests} requests; nobody "
            "here can tell whether all answers came from one model",
            *self._client.notes,
        ]

    @property
    def outputs(self) -> Outputs:
        """What it returns; where that was not stated, recognised by the values it gives."""
        if self._outputs is None:
            noise = np.random.default_rng(0).random((8, *self.input_spec.image_shape))
            self(noise.astype(np.float32))
        assert self._outputs is not None
        return self._outputs

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the raw outputs (n, k); raises ModelError where the server gives none."""
        rows = self._ask(images)
        if rows.shape[1] != self.input_spec.num_classes:
            raise self._broken("another number of classes", self.input_spec.num_classes, rows.shape)
        if self._outputs is None:
            self._outputs = "probabilities" if looks_like_probabilities(rows) else "logits"
            self._judged = f"outputs read as {self._outputs}, judged by their values"
        return rows

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How it is fed; None where there is no choice, since its input are bytes."""
        return None if self._image_input.dtype == "uint8" else self._image_input.preprocessing

    def with_preprocessing(self, preprocessing: Preprocessing) -> ServedModel:
        """Return the same model, fed otherwise; what is sent is counted together."""
        preprocessing.check(self.input_spec.channels, self._client.address)
        other = copy.copy(self)
        other._image_input = replace(self._image_input, preprocessing=preprocessing)
        return other

    def _ask(self, images: Images) -> NDArray[np.float64]:
        rows = []
        start = 0
        while start < len(images):
            part = images[start : start + self._most]
            try:
                rows.append(self._ask_once(part))
            except RefusedError:
                if self._image_input.batch or self._most == 1 or len(part) == 1:
                    raise
                self._most = max(1, min(self._most, len(part)) // 2)  # it may take fewer at a time
                continue
            start += len(part)
        return np.concatenate(rows)

    def _ask_once(self, images: Images) -> NDArray[np.float64]:
        ((batch, count),) = replace(
            self._image_input, batch=self._image_input.batch or len(images)
        ).batches(images)
        datatype = next(name for name, dtype in _TYPES.items() if dtype == self._image_input.dtype)
        reply = self._client.infer(
            {
                "inputs": [
                    {
                        "name": self._image_input.name,
                        "shape": list(batch.shape),
                        "datatype": datatype,
                        "data": batch.ravel().tolist(),
                    }
                ],
                "outputs": [{"name": self._output}],
            },
            len(batch),
        )
        return self._read(reply, len(batch))[:count]

    def _read(self, reply: Mapping[str, Any], num_rows: int) -> NDArray[np.float64]:
        """Return the rows of a reply, whose data may be nested or flat; raises ModelError."""
        tensor = _named(reply.get("outputs"), self._output)
        shape = _sizes(tensor.get("shape")) if tensor else None
        if tensor is None or shape is None:
            shown = str(sorted(reply))[:200]
            raise self._broken("no tensor of this name", self._output, shown)
        if len(shape) != 2 or shape[0] != num_rows or not shape[1] or shape[1] > _MOST_CLASSES:
            raise self._broken("outputs of another shape", f"({num_rows}, classes)", shape)
        try:
            values = np.asarray(tensor.get("data"), dtype=np.float64)
            return values.reshape(num_rows, shape[1])
        except (TypeError, ValueError, OverflowError) as fault:
            shown = str(tensor.get("data"))[:80]
            raise self._broken("data that do not fill their shape", shape, shown) from fault

    def _broken(self, what: str, expected: object, got: object) -> ModelError:
        return ModelError(
            f"the server's answer has {what}",
            expected=expected,
            got=got,
            where=self._client.address,
        )


def connect(
    client: InferenceClient,
    tensors: ServedTensors,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None = None,
) -> ServedModel:
    """Return the model behind a client, once `tensors` are known.

    `expected` fills in the sizes that the server leaves open and picks among several outputs.
    Raises ModelError or UnsupportedModelError where that is impossible, or where the server does
    not answer, ShapeError where it leaves sizes open and refuses the expected ones.
    """
    image_input = ImageInput.of(tensors.source, preprocessing, expected, client.address)
    num_classes = expected.num_classes if expected else None
    try:
        return ServedModel(client, tensors, image_input, num_classes)
    except RefusedError as fault:
        if None not in image_input.declared:
            raise
        raise ShapeError(
            fault.what, expected=fault.expected, got=fault.got, where=fault.where
        ) from fault


def read_metadata(metadata: Mapping[str, Any], where: object) -> ServedTensors:
    """Return what a server's answer says of a model's tensors.

    Raises UnsupportedModelError where it is no classifier of images, or where it does not say.
    """
    inputs, outputs = metadata.get("inputs"), metadata.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or not outputs:
        raise UnsupportedModelError(
            "the server does not say what the model takes and returns",
            expected="inputs and outputs in the model's metadata",
            got=", ".join(sorted(map(str, metadata))[:10]) or "nothing",
            where=where,
        )
    if len(inputs) > 1:
        raise UnsupportedModelError(
            "the model takes more than one input", expected=1, got=len(inputs), where=where
        )
    tensor = inputs[0] if isinstance(inputs[0], dict) else {}
    sizes, datatype = _sizes(tensor.get("shape")), str(tensor.get("datatype"))
    if sizes is None or len(sizes) != 4 or datatype not in _TYPES:
        raise UnsupportedModelError(
            "the model takes no images",
            expected=f"4 sizes (batch, channels, height, width) of {' or '.join(_TYPES)}",
            got=f"{tensor.get('shape')} of {datatype}"[:200],
            where=where,
        )
    source = GraphInput(name=str(tensor.get("name")), dtype=_TYPES[datatype], sizes=tuple(sizes))
    fitting = _class_outputs(outputs, where)
    return ServedTensors(source=source, class_outputs=fitting, num_outputs=len(outputs))


def _images_a_request(num_values: int) -> int:
    """How many images of so many pixels go into a request."""
    return max(1, min(_BATCH, _VALUES // num_values))


def _class_outputs(outputs: Sequence[Any], where: object) -> tuple[tuple[str, int | None], ...]:
    """The outputs (batch, classes), and how many these are."""
    tensors = [tensor for tensor in outputs if isinstance(tensor, dict)]
    pairs = [(str(tensor.get("name")), _sizes(tensor.get("shape"))) for tensor in tensors]
    fitting = tuple((name, s[1]) for name, s in pairs if s and len(s) == 2 and s[1] != 1)
    if fitting:
        return fitting
    shapes = [tensor.get("shape") for tensor in tensors]
    raise UnsupportedModelError(
        "not a classifier",
        expected="an output (batch, classes)",
        got=str(shapes)[:200],
        where=where,
    )


def _sizes(shape: Any) -> list[int | None] | None:
    """A shape's sizes, None for one that is left open; None where it is no shape."""
    if not isinstance(shape, list) or not shape:
        return None
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in shape):
        return None
    return [size if size > 0 else None for size in shape]


def _named(tensors: Any, name: str) -> Mapping[str, Any] | None:
    if not isinstance(tensors, list):
        return None
    return next((t for t in tensors if isinstance(t, dict) and t.get("name") == name), None)
