"""From an ONNX graph the graph of its gradient to the image, run by onnxruntime.

The weights are constants, so that only what lies between the image and the classes is gone back
through. The graph may be hostile: call it in a child process only. Names of the file are keys and
names of values, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import LitmusError, ModelError, UnsupportedModelError
from litmus.formats.gradients.builder import Builder
from litmus.formats.gradients.graph import prepared, topmost
from litmus.formats.onnx_input import ImageInput
from litmus.models import LOG_FLOOR, Images, InputSpec, Objective, Outputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["TOLERANCE", "OnnxGradients"]

TOLERANCE: Final = 1e-3
"""How far logits may be from the model's own, as a share of the largest one (or of 0.1)."""
_HALF_TOLERANCE: Final = 2e-2
"""The same for a graph that computes in 16 bits, which is gone back through in 32."""
_SHARP: Final = 1e6
"""A softmax at this scale is the largest value's one and the others' zeros."""
_NEVER: Final = -1e9
_ACTIVATIONS: Final = 2**26
"""Values of all activations at a time: 256 MiB."""
_MOST: Final = 256
_ONES, _SCALE, _BIAS = "litmus targets", "litmus scale", "litmus bias"


class OnnxGradients:
    """The gradients of an ONNX classifier, see `litmus.models.Gradients`.

    `answers` are the model's own raw outputs for images, with which those of the gradient's graph
    are compared at once. Raises UnsupportedModelError, naming the operator, where one has no
    gradient, and where the outputs differ by more than `TOLERANCE`.
    """

    def __init__(
        self,
        model: ModelProto,
        image_input: ImageInput,
        input_spec: InputSpec,
        outputs: Outputs,
        answers: Callable[[Images], NDArray[Any]],
        where: object,
    ) -> None:
        from litmus.formats.onnx_file import create_session

        self.input_spec = input_spec
        self._input, self._where = image_input, where
        try:
            ready, half = prepared(model)
            gradient, activations = _gradient_graph(ready, image_input, outputs)
            self._session = create_session(gradient.SerializeToString(), where)
        except MemoryError:
            raise
        except LitmusError as fault:
            raise self._refusal(fault.reason) from fault
        except Exception as fault:  # what onnx raises for an odd graph differs between versions
            raise self._refusal(f"{type(fault).__name__}: {fault}"[:200]) from fault
        self._batch = max(1, min(_MOST, _ACTIVATIONS // max(activations, 1)))
        self._check(answers, outputs, _HALF_TOLERANCE if half else TOLERANCE)

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return the logits (n, k)."""
        zeros = np.zeros(len(images), dtype=np.int64)
        return np.concatenate([part for part, _ in self._run(images, zeros, "cross_entropy", 1)])

    def descend(
        self, images: Images, targets: NDArray[np.int64], objective: Objective = "cross_entropy"
    ) -> tuple[NDArray[np.float32], Images]:
        """Return logits (n, k), and each image's gradient (n, c, h, w) of its own objective."""
        logits, gradients = zip(*self._run(images, targets, objective, 2), strict=True)
        return np.concatenate(logits), self._to_image(np.concatenate(gradients))

    def pullback(self, images: Images, cotangents: NDArray[np.float32]) -> Images:
        """Return each image's gradient of ``cotangents * logits``, summed."""
        # At scale 0 the softmax is 1 / k for every class, which is taken back here.
        k = self.input_spec.num_classes
        parts = self._fed(images, 1 / np.float32(k) - cotangents, 0 * cotangents, 0.0, 2)
        return self._to_image(np.concatenate([gradient for _, gradient in parts]))

    def _run(
        self, images: Images, targets: NDArray[np.int64], objective: Objective, outputs: int
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        chosen = np.eye(self.input_spec.num_classes, dtype=np.float32)[targets]
        margin = objective == "margin"
        bias = chosen * np.float32(_NEVER if margin else 0)
        return self._fed(images, chosen, bias, _SHARP if margin else 1.0, outputs)

    def _fed(
        self,
        images: Images,
        chosen: NDArray[np.float32],
        bias: NDArray[np.float32],
        sharpness: float,
        outputs: int,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield logits and gradients of ``softmax(sharpness * logits + bias) - chosen``."""
        scale = np.array(sharpness, dtype=np.float32)
        values = self._values(images)
        size = self._input.batch or self._batch
        names = [value.name for value in self._session.get_outputs()][:outputs]
        for start in range(0, len(values), size):
            part = slice(start, start + size)
            fed = [_filled(v[part], self._input.batch) for v in (values, chosen, bias)]
            feeds = dict(zip((self._input.name, _ONES, _BIAS), fed, strict=True))
            try:
                found = self._session.run(names, {**feeds, _SCALE: scale})
            except MemoryError:
                raise
            except Exception as fault:
                raise self._refusal(str(fault)[:200]) from fault
            count = len(values[part])
            yield found[0][:count], found[-1][:count]

    def _values(self, images: Images) -> NDArray[np.float32]:
        values = self._input.preprocessing.apply(images)
        if self._input.layout == "nhwc":
            values = values.transpose(0, 2, 3, 1)
        if self._input.dtype == "uint8":
            values = np.rint(values).clip(0, 255)
        return np.ascontiguousarray(values, dtype=np.float32)

    def _to_image(self, gradients: NDArray[np.float32]) -> Images:
        """Undo layout and preprocessing, to which all of a gradient is a scale."""
        stated = self._input.preprocessing
        if self._input.layout == "nhwc":
            gradients = gradients.transpose(0, 3, 1, 2)
        std = np.asarray(stated.std, np.float32).reshape(-1, 1, 1)
        found = gradients * (np.float32(stated.scale) / std)
        if stated.channels == "bgr":
            found = found[:, ::-1]
        return np.ascontiguousarray(found, dtype=np.float32)

    def _check(
        self, answers: Callable[[Images], NDArray[Any]], outputs: Outputs, tolerance: float
    ) -> None:
        images = _examples(self.input_spec.image_shape)
        expected = np.asarray(answers(images), dtype=np.float64)
        if not np.isfinite(expected).all():
            raise ModelError(
                "the model's outputs are not numbers", got="NaN or infinity", where=self._where
            )
        if outputs == "probabilities":
            expected = np.log(np.maximum(expected, 0) + np.exp(LOG_FLOOR))
        targets = np.arange(len(images)) % self.input_spec.num_classes
        logits, gradients = self.descend(images, targets)
        limit = tolerance * max(0.1, float(np.abs(expected).max()))
        off = np.abs(logits - expected).max() if logits.shape == expected.shape else np.inf
        if not off <= limit:
            raise self._refusal(f"with its gradient the model answers otherwise, {off:.2g} off")
        if not np.isfinite(gradients).all():
            raise self._refusal("the gradients of its outputs are not numbers")

    def _refusal(self, reason: str) -> UnsupportedModelError:
        text = " ".join(reason.split())
        return UnsupportedModelError(f"no gradients: {text}", where=self._where)


def _gradient_graph(
    model: ModelProto, image_input: ImageInput, outputs: Outputs
) -> tuple[ModelProto, int]:
    """Return the model with its loss and gradient behind it, and the activations of an image."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, shapes, kinds = topmost(model, image_input)
    graph, source = model.graph, image_input.name
    active = _active(nodes, source, kinds)
    b = Builder(shapes, constants, active)
    logits = graph.output[0].name
    if logits not in active:
        raise UnsupportedModelError("no gradient of its outputs reaches the image")
    head = len(b.nodes)
    if outputs == "probabilities":
        positive = b.add("Max", logits, b.const(0))
        found = b.add("Log", b.add("Add", positive, b.const(np.exp(LOG_FLOOR))))
        inside = b.add("Greater", logits, b.const(0))
        shifted = b.add("Add", positive, b.const(np.exp(LOG_FLOOR)))
    else:
        found = logits
    sharp = b.add("Add", b.add("Mul", found, _SCALE), _BIAS)
    start = b.add("Sub", b.add("Softmax", sharp, axis=1), _ONES)
    if outputs == "probabilities":
        start = b.add("Where", inside, b.add("Div", start, shifted), b.const(0))
    assert head == 0
    gradient = _backward(b, nodes, source, logits, start)
    k = shapes[logits][1]
    batch = image_input.batch or "n"
    made = helper.make_graph(
        [*nodes, *b.nodes],
        "gradient",
        [
            next(value for value in graph.input if value.name == source),
            helper.make_tensor_value_info(_ONES, TensorProto.FLOAT, [batch, k]),
            helper.make_tensor_value_info(_BIAS, TensorProto.FLOAT, [batch, k]),
            helper.make_tensor_value_info(_SCALE, TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (found, gradient)],
    )
    for name, value in {**_used(constants, made.node), **b.initializers}.items():
        made.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    whole = helper.make_model(
        made, opset_imports=list(model.opset_import), ir_version=max(model.ir_version, 8)
    )
    size = sum(int(np.prod(shapes[name])) for name in active if name in shapes)
    return whole, size // max(shapes[source][0], 1)


def _used(constants: dict[str, Any], nodes: Sequence[NodeProto]) -> dict[str, Any]:
    wanted = {name for node in nodes for name in node.input}
    return {name: value for name, value in constants.items() if name in wanted}


def _active(nodes: Sequence[NodeProto], source: str, kinds: dict[str, Any]) -> set[str]:
    """Return the values that the image reaches by what has a gradient."""
    from litmus.formats.gradients import FLAT

    active = {source}
    for node in nodes:
        if node.op_type not in FLAT and active.intersection(node.input):
            quantised = node.op_type == "QuantizeLinear"
            active.update(n for n in node.output if n and (quantised or kinds.get(n) == np.float32))
    return active


def _backward(b: Builder, nodes: Sequence[NodeProto], source: str, logits: str, start: str) -> str:
    """Emit what leads a cotangent of the logits back to the image, and return that."""
    from litmus.formats.gradients import GRADIENTS

    cotangents: dict[str, str] = {logits: start}
    for node in reversed(nodes):
        given = [cotangents.get(name) for name in node.output]
        if not any(given) or not b.active.intersection(node.input):
            continue
        rule = GRADIENTS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise UnsupportedModelError(f"its operator {node.op_type} has no gradient here")
        for name, found in zip(node.input, rule(b, node, given), strict=False):
            if found is None or name not in b.active:
                continue
            before = cotangents.get(name)
            cotangents[name] = found if before is None else b.add("Add", before, found)
    if source not in cotangents:
        raise UnsupportedModelError("no gradient of its outputs reaches the image")
    return b.add("Identity", cotangents[source])


def _filled(values: NDArray[np.float32], batch: int | None) -> NDArray[np.float32]:
    """A batch of a fixed size, filled up with its last row."""
    missing = batch - len(values) if batch else 0
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values


def _examples(shape: tuple[int, int, int]) -> Images:
    """Images of bytes, so that an input of bytes is not rounded: dark ones and bright ones."""
    random = np.random.default_rng(0)
    tops = np.linspace(64, 255, 4).reshape(-1, 1, 1, 1)
    return (np.rint(random.random((4, *shape)) * tops) / 255).astype(np.float32)
