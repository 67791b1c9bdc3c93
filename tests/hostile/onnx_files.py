"""ONNX files that are broken or mean harm, each with how a scan of it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.formats.onnx_models import SPEC, classifier, endless, finished, greedy

__all__ = ["MODELS", "Ending"]

Ending = tuple[str, str]
"""`failed` or `skipped`, and what the message matches."""

FLOAT: Final = TensorProto.FLOAT
K: Final = SPEC.num_classes


def _with_nodes(*nodes: onnx.NodeProto, **constants: Any) -> Callable[[], onnx.ModelProto]:
    """A classifier with more nodes behind its logits, of which the last one makes `y`."""

    def build() -> onnx.ModelProto:
        model = classifier()
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
        )
        model.graph.output[0].name = "y"
        return model

    return build


def _node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def _value(name: str, kind: int, sizes: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def _one_node(
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    kind: str = "Identity",
) -> onnx.ModelProto:
    node = helper.make_node(kind, [i.name for i in inputs], [o.name for o in outputs])
    return finished(helper.make_graph([node], "g", inputs, outputs))


def _declared(output: Sequence[int | str], *nodes: onnx.NodeProto, **constants: Any) -> Any:
    def build() -> onnx.ModelProto:
        model = _with_nodes(*nodes, **constants)() if nodes else classifier()
        name = model.graph.output[0].name
        model.graph.output[0].CopyFrom(_value(name, FLOAT, output))
        return model

    return build


def _times_by_image(times: int) -> list[onnx.NodeProto]:
    """So many times the logits, side by side, which no look at the graph alone can tell."""
    count = numpy_helper.from_array(np.array([0, times]), "count")
    return [
        _node("Shape", "images", output="shape"),
        _node("Constant", output="first", value=numpy_helper.from_array(np.array([0]), "zero")),
        _node("Gather", "shape", "first", output="n"),
        _node("Constant", output="count", value=count),
        _node("Div", "n", "n", output="one"),
        _node("Max", "one", "count", output="times"),
        _node("Tile", "logits", "times"),
    ]


def _nested_ifs(depth: int, innermost: onnx.NodeProto) -> Callable[[], onnx.ModelProto]:
    """A node inside of so many branches."""

    def build() -> onnx.ModelProto:
        node, result = innermost, _value("y", FLOAT, ["n", K])
        flat = helper.make_graph([_node("Identity", "logits")], "flat", [], [result])
        for _ in range(depth):
            branch = helper.make_graph([node], "branch", [], [result])
            node = _node("If", "true", then_branch=branch, else_branch=flat)
        model = classifier()
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
        model.graph.node.append(node)
        model.graph.output[0].name = "y"
        return model

    return build


def _chain_of_functions() -> onnx.ModelProto:
    """Twenty local functions, each of which calls the next ten times: 10^20 nodes, inlined."""
    model = classifier()
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    for place in range(20):
        kind, domain = (f"f{place + 1}", "local") if place < 19 else ("Tanh", "")
        names = ["x", *(f"v{i}" for i in range(9)), "y"]
        nodes = [
            helper.make_node(kind, [before], [after], domain=domain)
            for before, after in pairwise(names)
        ]
        model.functions.append(
            helper.make_function("local", f"f{place}", ["x"], ["y"], nodes, opsets)
        )
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("f0", ["logits"], ["y"], domain="local"))
    model.graph.output[0].name = "y"
    return model


def _function_that_calls_itself() -> onnx.ModelProto:
    model = classifier()
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    body = [helper.make_node("f", ["x"], ["y"], domain="local")]
    model.functions.append(helper.make_function("local", "f", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("f", ["logits"], ["y"], domain="local"))
    model.graph.output[0].name = "y"
    return model


def _foreign(domain: str, kind: str = "Evil") -> Callable[[], onnx.ModelProto]:
    return _with_nodes(helper.make_node(kind, ["logits"], ["y"], domain=domain))


def _sparse() -> onnx.ModelProto:
    """An initializer of 2^40 numbers, of which one is there."""
    model = classifier()
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("huge", FLOAT, [1], [1.0]),
        helper.make_tensor("places", TensorProto.INT64, [1], [5]),
        [2**20, 2**20],
    )
    model.graph.sparse_initializer.append(sparse)
    model.graph.node.append(_node("ReduceMax", "huge", output="top", keepdims=0))
    model.graph.node.append(_node("Add", "logits", "top"))
    model.graph.output[0].name = "y"
    return model


def _claims_more(dims: Sequence[int], raw: bytes = b"") -> Callable[[], onnx.ModelProto]:
    """Weights whose tensor says other sizes than it has bytes for."""

    def build() -> onnx.ModelProto:
        model = classifier()
        tensor = model.graph.initializer[0]
        tensor.ClearField("dims")
        tensor.dims.extend(dims)
        if raw:
            tensor.raw_data = raw
        return model

    return build


def _large_images(*sizes: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        x, y = _value("x", FLOAT, ["n", *sizes]), _value("y", FLOAT, ["n", K])
        nodes = [
            _node("GlobalAveragePool", "x", output="p"),
            _node("Flatten", "p", output="f"),
            _node("MatMul", "f", "w"),
        ]
        weights = numpy_helper.from_array(np.ones((sizes[0], K), np.float32), "w")
        return finished(helper.make_graph(nodes, "g", [x], [y], [weights]))

    return build


def _while_true() -> onnx.ModelProto:
    """A Loop without a number of trips whose condition never changes."""
    model = endless()
    loop = model.graph.node[-1]
    loop.input[0] = ""
    return model


def _no_inputs() -> onnx.ModelProto:
    model = classifier()
    del model.graph.input[:]
    return model


def _no_outputs() -> onnx.ModelProto:
    model = classifier()
    del model.graph.output[:]
    return model


def _sequence_input() -> onnx.ModelProto:
    x = helper.make_tensor_sequence_value_info("x", FLOAT, ["n", 3, 6, 5])
    y = _value("y", FLOAT, ["n", K])
    node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
    return finished(helper.make_graph([node], "g", [x], [y]))


def _string_output() -> onnx.ModelProto:
    return _one_node(
        [_value("x", FLOAT, ["n", 3, 6, 5])], [_value("y", TensorProto.STRING, ["n", K])]
    )


def _circle() -> onnx.ModelProto:
    return _with_nodes(_node("Identity", "y2"), _node("Identity", "y", output="y2"))()


def _long_class_names() -> onnx.ModelProto:
    model = classifier()
    names = ", ".join(f'"{"x" * 2_000_000}"' for _ in range(K))
    model.metadata_props.add(key="classes", value=f"[{names}]")
    return model


def _classes_that_depend_on_the_image() -> onnx.ModelProto:
    """As many classes as there are bright pixels, so never twice the same."""
    return _with_nodes(
        _node("NonZero", "images", output="where"),
        _node("Shape", "where", output="counts"),
        _node("Gather", "counts", "one", output="count", axis=0),
        _node("Concat", "minus", "count", output="sizes", axis=0),
        _node("ReduceMax", "logits", output="top", axes=[1], keepdims=1),
        _node("Shape", "top", output="rows"),
        _node("Gather", "rows", "zero", output="n", axis=0),
        _node("Concat", "n", "count", output="wanted", axis=0),
        _node("Expand", "top", "wanted"),
        one=np.array([1]), minus=np.array([-1]), zero=np.array([0]),
    )()  # fmt: skip


NAN: Final = _with_nodes(_node("Mul", "logits", "nan"), nan=np.float32("nan"))
INFINITE: Final = _with_nodes(_node("Div", "logits", "zero"), zero=np.float32(0))

MODELS: Final[dict[str, tuple[Callable[[], onnx.ModelProto], Ending]]] = {
    # Operators that are not the standard's.
    "custom operator": (_foreign("com.evil"), ("skipped", r"custom operators .*Evil of com\.evil")),
    "onnxruntime's own operator": (
        _foreign("com.microsoft", "EPContext"),
        ("skipped", r"custom operators .*EPContext of com\.microsoft"),
    ),
    "custom operator in 20 branches": (
        _nested_ifs(20, helper.make_node("Evil", ["logits"], ["y"], domain="com.evil")),
        ("skipped", r"custom operators .*Evil of com\.evil"),
    ),
    "unknown operator": (_foreign("", "Nonsense"), ("failed", "No Op registered for Nonsense")),
    "opset of the future": (lambda: classifier(opset=99), ("skipped", "Opset 99|opset 28")),
    # What doesn't end, and what doesn't fit.
    "endless loop": (endless, ("failed", "limit of 3 seconds")),
    "while true": (_while_true, ("failed", "limit of 3 seconds")),
    "function that calls itself": (_function_that_calls_itself, ("failed", "crashed|recurs")),
    "functions that grow to 10^20 nodes": (_chain_of_functions, ("failed", "limit|crashed")),
    "8 GiB of zeros": (greedy, ("failed", "more memory than the limit of 1024 MiB")),
    "sparse tensor of 2^40 numbers": (_sparse, ("failed", "memory|can't run it|too large")),
    "images of 2^40 pixels": (
        _large_images(3, 2**20, 2**20),
        ("failed", "more memory than the limit"),
    ),
    "batch of 10^9": (lambda: classifier(batch=10**9), ("failed", "an impossible batch size")),
    # Answers that are none.
    "NaN": (NAN, ("failed", "outputs are not numbers")),
    "infinity": (INFINITE, ("failed", "outputs are not numbers")),
    "10^9 classes": (
        _declared(["n", "k"], _node("Tile", "logits", "times"), times=np.array([1, 10**9 // K])),
        ("skipped", r"the model takes 3x6x5 -> 1000000000 classes"),
    ),
    "10^9 classes, declared": (
        _declared(["n", 10**9], *_times_by_image(1)),
        ("skipped", r"the model takes 3x6x5 -> 1000000000 classes"),
    ),
    "10^9 classes, unforeseen": (
        _declared(["n", "k"], *_times_by_image(10**9 // K)),
        ("failed", "more memory than the limit|would require more than"),
    ),
    "10^9 classes where 4 were declared": (
        _declared(["n", K], *_times_by_image(10**9 // K)),
        ("failed", "more memory than the limit|would require more than"),
    ),
    "another number of classes each time": (
        _classes_that_depend_on_the_image,
        ("failed", "another number of classes|classes"),
    ),
    "answers of rank 3": (
        _declared(["n", K, 1], _node("Unsqueeze", "logits", "axes"), axes=np.array([2])),
        ("skipped", r"an output of floats, \(n, classes\), got y FLOAT \(\?, 4, 1\)"),
    ),
    "answers of rank 3, declared 2": (
        _declared(["n", K], _node("Unsqueeze", "logits", "axes"), axes=np.array([2])),
        ("skipped", r"not a classifier .*got \(\d, 4, 1\)"),
    ),
    "answers of rank 1": (
        _declared(["n"], _node("ReduceMax", "logits", axes=[1], keepdims=0)),
        ("skipped", r"got y FLOAT \(\?\)"),
    ),
    "one answer for all images": (
        _with_nodes(_node("ReduceMean", "logits", axes=[0], keepdims=1)),
        ("failed", "one row of outputs an image"),
    ),
    "text answers": (_string_output, ("skipped", "got y STRING")),
    "class names of 8 MB": (_long_class_names, ("failed", "reply is longer than")),
    # Inputs that are no images.
    "text input": (lambda: classifier(dtype=TensorProto.STRING), ("skipped", "got images STRING")),
    "input of rank 2": (
        lambda: _one_node([_value("x", FLOAT, ["n", 8])], [_value("y", FLOAT, ["n", 8])]),
        ("skipped", r"an input of rank 4, got x FLOAT \(\?, 8\)"),
    ),
    "input of rank 5": (
        lambda: _one_node(
            [_value("x", FLOAT, ["n", 3, 2, 6, 5])], [_value("y", FLOAT, ["n", K])], kind="Flatten"
        ),
        ("skipped", "an input of rank 4"),
    ),
    "input without rank": (
        lambda: _one_node([_value("x", FLOAT, None)], [_value("y", FLOAT, ["n", K])]),
        ("skipped", "an input of rank 4, got x FLOAT of unknown rank"),
    ),
    "a sequence of images": (_sequence_input, ("skipped", "input's type can't hold an image")),
    "no input": (_no_inputs, ("skipped", "expected one input, got 0")),
    "no output": (_no_outputs, ("skipped", "no output")),
    # Graphs that do not hang together.
    "a circle": (_circle, ("failed", "can't run it")),
    "a tensor without bytes": (_claims_more([90, K], b"\0" * 8), ("failed", "can't run it")),
    "a tensor of 2^60 numbers": (_claims_more([2**30, 2**30]), ("failed", "can't run it")),
    "a tensor of negative sizes": (_claims_more([-90, -K]), ("failed", "can't run it")),
}
