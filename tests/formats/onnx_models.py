"""Tiny real ONNX files and detectors, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from litmus.detectors import Detector
from litmus.detectors.calibration import Calibration
from litmus.detectors.fused import FusedDetector
from litmus.detectors.last_layer import LastLayerDetector
from litmus.detectors.max_margin import MaxMarginDetector
from litmus.detectors.neural_cleanse import NeuralCleanseDetector
from litmus.detectors.patterns import Member, ULPDetector
from litmus.detectors.stacking import Combination, possible_sets
from litmus.detectors.statistic import Head, StatisticDetector
from litmus.detectors.trigger_search import TriggerSearchDetector
from litmus.models import InputSpec

SPEC = InputSpec(channels=3, height=6, width=5, num_classes=4)


def detector(spec: InputSpec = SPEC, *, members: int = 2, patterns: int = 3) -> ULPDetector:
    """A detector with random patterns and heads, calibrated on 99 numbers."""
    random = np.random.default_rng(7)
    features = patterns * spec.num_classes
    return ULPDetector(
        input_spec=spec,
        calibration=calibration(random, members),
        scope={},
        held_out={},
        members=[
            Member(
                patterns=random.random((patterns, *spec.image_shape)).astype(np.float32),
                parameters={
                    "weight": random.normal(size=(2, features)),
                    "bias": np.zeros(2),
                    "mean": np.zeros(features),
                    "std": np.ones(features),
                },
            )
            for _ in range(members)
        ],
    )


def calibration(random: np.random.Generator, members: int, count: int = 99) -> Calibration:
    """99 numbers, or so many, in place of clean models' scores."""
    return Calibration(
        scores=random.normal(size=count),
        members=np.arange(count) % members,
        temperature=1.0,
        scope_limit=1e3,
    )


def layer_detector(spec: InputSpec = SPEC, *, members: int = 2) -> LastLayerDetector:
    """A detector of last layers with random heads."""
    made: LastLayerDetector = statistic_detector(LastLayerDetector, {}, spec, members)
    return made


def fused_detector(
    spec: InputSpec = SPEC, *, members: int = 2, images_per_class: int = 2
) -> FusedDetector:
    """A detector of four parts with random heads, and random weights for each set of them."""
    random = np.random.default_rng(5)
    margins = {"steps": 2, "starts": 1, "learning_rate": 0.4}
    masks = {"steps": 3, "images_per_class": images_per_class, "batch_images": 4, "patience": 1}
    parts: dict[str, Detector] = {
        "ulp": detector(spec, members=members),
        "last_layer": layer_detector(spec, members=members),
        "max_margin": statistic_detector(MaxMarginDetector, margins, spec, members),
        "neural_cleanse": statistic_detector(NeuralCleanseDetector, masks, spec, members),
    }
    combinations = {
        chosen: Combination(
            weights=random.uniform(1, 2, size=len(chosen)),
            bias=0.0,
            calibration=calibration(random, members, count=99 - 20 * len(chosen)),
            held_out={"auc": 0.9, "auc_low": 0.8, "auc_high": 1.0, "n_clean": 9, "n_backdoored": 8},
        )
        for chosen in possible_sets(parts)
    }
    whole = combinations["ulp", "last_layer"]
    return FusedDetector(
        input_spec=spec,
        parts=parts,
        combinations=combinations,
        calibration=whole.calibration,
        held_out=whole.held_out,
        scope={"parts": {part: {} for part in parts}},
    )


def search_detector(spec: InputSpec = SPEC, *, members: int = 2) -> TriggerSearchDetector:
    """A trigger search with random images, tables and heads, that takes a moment."""
    random = np.random.default_rng(9)
    settings = {"rungs": [[1, 1], [2, 2]], "finalists": 3, "views": 4, "shift": 1}
    found: TriggerSearchDetector = statistic_detector(
        TriggerSearchDetector, settings, spec, members
    )
    k, forms = spec.num_classes, len(found.forms)
    pixels = random.integers(0, 256, size=(k, 4, *spec.image_shape))
    return replace(
        found,
        images=(pixels / 255).astype(np.float32),
        tables=random.normal(size=found._num_logs),
        clean_success=np.sort(random.random((forms, 20)), axis=1),
    )


def statistic_detector(
    kind: type[StatisticDetector], settings: dict[str, Any], spec: InputSpec, members: int
) -> Any:
    """A detector of this kind with random heads."""
    random = np.random.default_rng(3)
    f = len(kind.statistic_names)
    return kind(
        input_spec=spec,
        settings=settings,
        heads=[
            Head(
                mean=random.normal(size=f),
                std=random.uniform(1, 2, size=f),
                weight=random.normal(size=f),
                bias=np.asarray(float(index)),
            )
            for index in range(members)
        ],
        calibration=calibration(random, members),
        scope={},
        held_out={},
    )


def weights(spec: InputSpec = SPEC, seed: int = 0) -> NDArray[np.float32]:
    """The matrix (c * h * w, k) of `classifier`."""
    size = (int(np.prod(spec.image_shape)), spec.num_classes)
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def classifier(
    *,
    spec: InputSpec = SPEC,
    seed: int = 0,
    ending: Sequence[str] = (),
    layout: str = "nchw",
    batch: int | str = "n",
    dtype: int = TensorProto.FLOAT,
    opset: int = 13,
    sizes: Sequence[int | str] | None = None,
    output: Sequence[int | str] | None = None,
    gain: float = 1.0,
) -> onnx.ModelProto:
    """Logits = image (flattened as n, c, h, w) @ weights, and what `ending` adds.

    An element of `ending` is an operator, or `Operator:axis`.
    """
    shape = spec.image_shape if layout == "nchw" else (*spec.image_shape[1:], spec.image_shape[0])
    nodes, last = [], "images"
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["float"], to=TensorProto.FLOAT))
        last = "float"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["chw"], perm=[0, 3, 1, 2]))
        last = "chw"
    nodes += [
        helper.make_node("Flatten", [last], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    last = "logits"
    for i, item in enumerate(ending):
        kind, _, axis = item.partition(":")
        nodes.append(helper.make_node(kind, [last], [f"end{i}"]))
        if axis:
            nodes[-1].attribute.append(helper.make_attribute("axis", int(axis)))
        last = f"end{i}"
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", dtype, [batch, *(sizes or shape)])],
        [
            helper.make_tensor_value_info(
                last, TensorProto.FLOAT, output or [batch, spec.num_classes]
            )
        ],
        [numpy_helper.from_array(gain * weights(spec, seed), "w")],
    )
    return finished(graph, opset)


def finished(graph: onnx.GraphProto, opset: int = 13) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def external(folder: Path, location: str, **entries: int) -> Path:
    """A model whose weights are said to lie in another file."""
    model = classifier()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = save(model, folder / "model.onnx")
    for file in (folder / "weights.bin", folder.parent / "outside.bin"):
        file.write_bytes(bytes(64) + content + bytes(64))
    return path


def endless(spec: InputSpec = SPEC) -> onnx.ModelProto:
    """A classifier whose Loop counts to 2**62 first."""
    scalar = {name: helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in "cd"}
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    before, after = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", spec.num_classes])
        for name in ("before", "after")
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["d"]),
            helper.make_node("Tanh", ["before"], ["after"]),
        ],
        "body",
        [step, scalar["c"], before],
        [scalar["d"], after],
    )
    model = classifier(spec=spec)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(2**62), "trips"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    graph.node.append(helper.make_node("Loop", ["trips", "true", "logits"], ["y"], body=body))
    graph.output[0].name = "y"
    return model


def greedy(spec: InputSpec = SPEC, *, gib: int = 8) -> onnx.ModelProto:
    """A classifier that fills so many GiB on the way."""
    model = classifier(spec=spec)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([gib, 2**28]), "size"))
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["filled"]),
            helper.make_node("ReduceMax", ["filled"], ["zero"], keepdims=0),
            helper.make_node("Add", ["logits", "zero"], ["y"]),
        ]
    )
    graph.output[0].name = "y"
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
