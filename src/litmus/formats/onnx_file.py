"""ONNX files, run by onnxruntime on one thread; load them in a child process only."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.errors import ModelError, ShapeError, UnsupportedModelError
from litmus.formats import onnx_graph
from litmus.formats.onnx_external import load_external_data
from litmus.formats.onnx_input import ImageInput
from litmus.formats.preprocessing import Preprocessing
from litmus.models import Gradients, Images, InputSpec, LastLayer, Outputs, looks_like_probabilities

__all__ = [
    "MAX_FILE_BYTES",
    "OnnxModel",
    "create_session",
    "load",
    "runtime_error",
    "serialised",
]

MAX_FILE_BYTES: Final = 2 * 1024**3
"""Model and external data together; protobuf itself can't hold more."""

# How onnxruntime begins to complain about a file from the future.
_NEWER: Final = ("Unsupported model IR version", "Current official support for domain")
_MAX_SAID: Final = 2000
# What it says of itself: a code, and where in its own source it complains.
_ITS_OWN: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|(?<!\S)/\S+:\d+ [^()]*\([^()]*\)(?: const)? "
    r"|\b\w+\.(?:cc|h):\d+ \w+ "
)


class OnnxModel:
    """An ONNX classifier, ready to run; made by `load`.

    `notes` tells what was assumed; `classes` are the names that the file or its sidecar states.
    """

    def __init__(
        self,
        *,
        path: Path,
        graph: Any,
        image_input: ImageInput,
        outputs: Outputs | None,
        several_outputs: bool,
        notes: list[str],
    ) -> None:
        self.notes = notes
        self.external_files: tuple[str, ...] = ()
        self._path, self._image_input, self._outputs = path, image_input, outputs
        self._several_outputs = several_outputs
        self._graph = graph
        self._gradients: Gradients | None = None
        self._session = create_session(serialised(graph, path), path)
        channels, height, width = image_input.image_shape
        self.input_spec = InputSpec(
            channels=channels, height=height, width=width, num_classes=self._count_classes()
        )
        self.classes = _class_names(
            graph, image_input.preprocessing, self.input_spec.num_classes, path
        )

    @property
    def takes(self) -> str:
        """The shape as the file states it, ? where it leaves a size open."""
        sizes = "x".join(str(size or "?") for size in self._image_input.declared)
        return f"{sizes} -> {self.input_spec.num_classes} classes"

    def may_take(self, spec: InputSpec) -> bool:
        """Return whether the file, loaded with `expected=spec`, might be a model of that shape."""
        shape, image_input = spec.image_shape, self._image_input
        if self._several_outputs:
            return shape == image_input.image_shape or image_input.may_be(shape)
        return spec.num_classes == self.input_spec.num_classes and image_input.may_be(shape)

    @property
    def outputs(self) -> Outputs:
        """What it returns; where the graph does not tell, recognised by the values it gives."""
        if self._outputs is None:
            noise = np.random.default_rng(0).random((8, *self.input_spec.image_shape))
            self(noise.astype(np.float32))
        assert self._outputs is not None
        return self._outputs

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the raw outputs (n, k); raises ModelError where the model fails to run."""
        if images.shape[1:] != self.input_spec.image_shape:
            raise ModelError(
                "the images do not fit the model",
                expected=self.input_spec.image_shape,
                got=images.shape[1:],
                where=self._path,
            )
        rows = self._run(images)
        if rows.shape[1] != self.input_spec.num_classes:
            raise ModelError(
                "the model returned another number of classes than it declares",
                expected=self.input_spec.num_classes,
                got=rows.shape[1],
                where=self._path,
            )
        if self._outputs is None:
            self._outputs = "probabilities" if looks_like_probabilities(rows) else "logits"
            self.notes.append(f"outputs read as {self._outputs}, judged by their values")
        return rows

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How it is fed; None where there is no choice, since its input are bytes."""
        return None if self._image_input.dtype == "uint8" else self._image_input.preprocessing

    def with_preprocessing(self, preprocessing: Preprocessing) -> OnnxModel:
        """Return the same network, in the same session, fed otherwise."""
        before = self._image_input
        preprocessing.check(self.input_spec.channels, self._path)
        other = copy.copy(self)
        other._image_input = replace(before, preprocessing=preprocessing)
        other._gradients = None  # it would hold the other preprocessing
        other.notes = [*other._image_input.notes, *self.notes[len(before.notes) :]]
        return other

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """Return the graph's initializers by name."""
        from onnx import numpy_helper

        return {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.graph.initializer
        }

    def last_layer(self) -> LastLayer:
        """Return the layer that gives the logits; raises UnsupportedModelError without one."""
        from litmus.formats.onnx_last_layer import last_layer

        return last_layer(self._graph.graph, self.input_spec.num_classes, self._path)

    def gradients(self) -> Gradients:
        """Return the network with its gradients to images in [0, 1], preprocessing inside.

        Raises UnsupportedModelError where an operator has no gradient, or the outputs are not those
        of this model (see `gradients.network.OnnxGradients`).
        """
        from litmus.formats.gradients.network import OnnxGradients

        if self._gradients is None:
            self._gradients = OnnxGradients(
                self._graph, self._image_input, self.outputs, self.input_spec, self, self._path
            )
        return self._gradients

    def _count_classes(self) -> int:
        shape = self._session.get_outputs()[0].shape
        if shape and len(shape) != 2:
            raise self._no_classifier(tuple(shape))
        declared = shape and isinstance(shape[1], int) and shape[1] > 0
        if declared and None not in self._image_input.declared:
            return int(shape[1])
        # What a graph leaves open, it may still not take.
        blank = np.zeros((1, *self._image_input.image_shape), np.float32)
        return int(self._run(blank).shape[1])

    def _run(self, images: Images) -> NDArray[Any]:
        answers = []
        for batch, count in self._image_input.batches(images):
            try:
                rows = self._session.run(None, {self._image_input.name: batch})[0]
            except MemoryError:
                raise
            except Exception as fault:
                raise runtime_error(fault, self._path) from fault
            if rows.ndim != 2:
                raise self._no_classifier(rows.shape)
            if len(rows) != len(batch):
                raise ModelError(
                    "one row of outputs an image is needed",
                    expected=len(batch),
                    got=len(rows),
                    where=self._path,
                )
            answers.append(rows[:count])
        return np.concatenate(answers)

    def _no_classifier(self, shape: tuple[Any, ...]) -> UnsupportedModelError:
        return UnsupportedModelError(
            "not a classifier", expected="an output (n, classes)", got=shape, where=self._path
        )


def load(
    path: Path,
    preprocessing: Preprocessing | None = None,
    *,
    expected: InputSpec | None = None,
    max_bytes: int = MAX_FILE_BYTES,
) -> OnnxModel:
    """Load an ONNX classifier of images.

    `expected` fills in the sizes that the graph leaves open and picks among several outputs or
    layouts; whether the model fits it is the caller's question. Raises ModelError on a damaged
    file, ShapeError on one that leaves sizes open and does not run on the expected ones,
    UnsupportedModelError on a whole one that is no plain image classifier.
    """
    data = _read_bounded(path, max_bytes)
    graph = onnx_graph.parse(data, path)
    onnx_graph.check_operators(graph, path)
    external = load_external_data(graph, path, max_bytes - len(data))
    source = onnx_graph.image_input(graph, path)
    try:
        model = _made(graph, source, preprocessing or Preprocessing(), expected, path)
    except UnsupportedModelError:
        raise
    except ModelError as fault:
        if None not in source.sizes[1:]:
            raise
        raise ShapeError(
            fault.what, expected=fault.expected, got=fault.got, where=fault.where
        ) from fault
    model.external_files = external
    return model


def _made(
    graph: Any,
    source: onnx_graph.GraphInput,
    preprocessing: Preprocessing,
    expected: InputSpec | None,
    path: Path,
) -> OnnxModel:
    image_input = ImageInput.of(source, preprocessing, expected, path)
    num_classes = expected.num_classes if expected else None
    several = onnx_graph.keep_class_output(graph, num_classes, path)
    outputs: Outputs | None = None if preprocessing.outputs == "auto" else preprocessing.outputs
    softmax = onnx_graph.read_before_softmax(graph) if outputs != "logits" else None
    return OnnxModel(
        path=path,
        graph=graph,
        image_input=image_input,
        outputs="logits" if softmax else outputs,
        several_outputs=several is not None,
        notes=[*image_input.notes, *(note for note in (several, softmax) if note)],
    )


def create_session(data: bytes, where: object) -> Any:
    """Return an onnxruntime session on one thread of the processor that never prints.

    Raises ModelError, or UnsupportedModelError for what this onnxruntime does not know yet.
    """
    # onnxruntime 1.29 and later would report each session to its maker over the network.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as fault:
        raise runtime_error(fault, where) from fault


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ModelError(
                "the file is too large", expected=f"at most {max_bytes} bytes", got=size, where=path
            )
        return path.read_bytes()
    except OSError as fault:
        raise ModelError(f"can't be read: {fault.strerror}", where=path) from fault


def runtime_error(fault: Exception, where: object) -> ModelError:
    """Say in one line what onnxruntime said; its exceptions share no base class of their own."""
    text = _ITS_OWN.sub("", str(fault)[:_MAX_SAID]).strip()
    said = text.splitlines()[0][:400] if text else type(fault).__name__
    unknown = type(fault).__name__ == "NotImplemented" or any(t in text for t in _NEWER)
    kind = UnsupportedModelError if unknown else ModelError
    return kind(f"onnxruntime can't run it: {said}", where=where)


def serialised(graph: Any, path: object) -> bytes:
    """Return a model's bytes; raises ModelError where it is too large for them."""
    try:
        return bytes(graph.SerializeToString())
    except MemoryError:
        raise
    except Exception as fault:
        # protobuf's own limit of 2 GiB; the type of its exception differs between versions.
        raise ModelError("too large to be run", got=str(fault)[:200], where=path) from fault


def _class_names(
    graph: Any, preprocessing: Preprocessing, num_classes: int, path: Path
) -> tuple[str, ...]:
    if names := preprocessing.class_names(num_classes, path):
        return names
    stated = next((entry.value for entry in graph.metadata_props if entry.key == "classes"), "null")
    try:
        listed = json.loads(stated)
    except (ValueError, RecursionError):
        return ()
    fits = isinstance(listed, list) and len(listed) == num_classes
    return tuple(map(str, listed)) if fits else ()
