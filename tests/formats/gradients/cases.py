"""Small graphs with every operator that has a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from litmus.models import InputSpec
from tests.formats.onnx_models import finished

SPEC = InputSpec(channels=3, height=8, width=7, num_classes=4)
RANDOM = np.random.default_rng(0)
Arrays = dict[str, NDArray[Any]]
FLOAT, HALF, DOUBLE, INT64 = 1, 10, 11, 7

KERNEL = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
OTHER = RANDOM.normal(size=(4, 2, 2, 2)).astype(np.float32)
ONE = RANDOM.normal(size=(1, 1, 4, 4)).astype(np.float32)
FOUR = {name: RANDOM.uniform(0.5, 2, size=4).astype(np.float32) for name in "abcd"}
TWO = {name: RANDOM.uniform(0.5, 2, size=2).astype(np.float32) for name in "ab"}


def node(kind: str, inputs: Sequence[str] | str, outputs: str, **attributes: Any) -> NodeProto:
    names = inputs.split() if isinstance(inputs, str) else inputs
    return helper.make_node(kind, names, outputs.split(), **attributes)


def numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def network(
    nodes: Sequence[NodeProto], arrays: Arrays, opset: int, *, batch: int | str = "n"
) -> onnx.ModelProto:
    """A convolution from images of SPEC to h (n, 4, 8, 7); `nodes` to y, whose means are logits.

    A y of another rank than 4 is the logits.
    """
    last = [
        node("GlobalAveragePool", "y", "means"),
        node("Flatten", "means", "logits"),
    ]
    if nodes[-1].output[0] != "y":
        last = []
    whole = [node("Conv", "x kernel", "h", pads=[1, 1, 1, 1]), *nodes, *last]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *SPEC.image_shape])
    y = helper.make_tensor_value_info(whole[-1].output[0], TensorProto.FLOAT, [batch, None])
    tensors = [numpy_helper.from_array(a, n) for n, a in {"kernel": KERNEL, **arrays}.items()]
    return finished(helper.make_graph(whole, "g", [x], [y], tensors), opset)


Case = tuple[Sequence[int], list[NodeProto], Arrays]

SHAPES = [
    node("Shape", "h", "s"),
    node("Gather", "s zero", "n0"),
    node("Unsqueeze", "n0 axes", "n1"),
    node("Concat", "n1 rest", "target", axis=0),
    node("Reshape", "h target", "y"),
]

CASES: dict[str, Case] = {
    "relu": ([7, 13, 22], [node("Relu", "h", "y")], {}),
    "leaky relu": ([7, 15, 18], [node("LeakyRelu", "h", "y", alpha=0.2)], {}),
    "elu": ([7, 18, 22], [node("Elu", "h", "y", alpha=0.7)], {}),
    "selu, celu": ([18], [node("Selu", "h", "s"), node("Celu", "s", "y", alpha=0.7)], {}),
    "sigmoid, tanh": ([9, 18], [node("Sigmoid", "h", "s"), node("Tanh", "s", "y")], {}),
    "silu": ([13, 18], [node("Sigmoid", "h", "s"), node("Mul", "h s", "y")], {}),
    "softplus": ([9, 22], [node("Softplus", "h", "s"), node("Softsign", "s", "y")], {}),
    "prelu": ([9, 16], [node("PRelu", "h slope", "y")], {"slope": FOUR["a"].reshape(4, 1, 1)}),
    "hard swish": ([14, 22], [node("HardSwish", "h", "y")], {}),
    "hard sigmoid": (
        [11, 22],
        [node("HardSigmoid", "h", "s", alpha=0.3), node("Mul", "h s", "y")],
        {},
    ),
    "mish": ([18, 22], [node("Mish", "h", "y")], {}),
    "gelu": ([20], [node("Gelu", "h", "g"), node("Gelu", "g", "y", approximate="tanh")], {}),
    "gelu, spelt out": (
        [9, 13, 17],
        [
            node("Div", "h root", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "a"),
            node("Mul", "h a", "m"),
            node("Mul", "m half", "y"),
        ],
        {
            "root": np.array(2**0.5, np.float32),
            "one": np.ones((), np.float32),
            "half": np.full((), 0.5, np.float32),
        },
    ),
    "arithmetic": (
        [9, 18],
        [
            node("Abs", "h", "a"),
            node("Sqrt", "a", "r"),
            node("Pow", "a two", "p"),
            node("Sub", "r p", "s"),
            node("Neg", "s", "g"),
            node("Exp", "g", "e"),
            node("Max", "e h r", "m"),
            node("Sum", "m h r", "t"),
            node("Mean", "t h", "y"),
        ],
        {"two": np.full((), 2.0, np.float32)},
    ),
    "where": (
        [9, 18],
        [node("Greater", "h zero", "c"), node("Where", "c h zero", "y")],
        {"zero": np.zeros((), np.float32)},
    ),
    "clip, attributes": ([7], [node("Clip", "h", "y", min=-0.5, max=0.5)], {}),
    "clip, inputs": (
        [11, 18],
        [node("Clip", "h low high", "c"), node("Clip", ["c", "", "half"], "y")],
        {
            "low": np.array(-0.7, np.float32),
            "high": np.array(0.7, np.float32),
            "half": np.array(0.5, np.float32),
        },
    ),
    "maximum pooling": (
        [8, 12, 22],
        [node("MaxPool", "h", "y", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1])],
        {},
    ),
    "maximum pooling, ceiling": (
        [10, 18],
        [node("MaxPool", "h", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "average pooling": (
        [7, 18, 22],
        [node("AveragePool", "h", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1])],
        {},
    ),
    "average pooling, pads counted": (
        [7, 18],
        [
            node(
                "AveragePool",
                "h",
                "y",
                kernel_shape=[2, 3],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
            )
        ],
        {},
    ),
    "same padding": (
        [9, 18],
        [
            node("MaxPool", "h", "m", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
            node("AveragePool", "m", "a", kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
            node("Conv", "a other", "y", strides=[2, 2], auto_pad="SAME_UPPER", group=2),
        ],
        {"other": OTHER},
    ),
    "global pooling": (
        [9, 22],
        [node("GlobalMaxPool", "h", "m"), node("Add", "m h", "y")],
        {},
    ),
    "convolution, lopsided": (
        [7, 22],
        [node("Conv", "h other a", "y", pads=[1, 0, 0, 2], dilations=[2, 1], group=2)],
        {"other": OTHER, **FOUR},
    ),
    "convolution, weights computed": (
        [9, 18],
        [
            node("Transpose", "stored", "w", perm=[3, 2, 0, 1]),
            node("Conv", "h w", "y"),
        ],
        {"stored": np.ascontiguousarray(OTHER.transpose(2, 3, 1, 0)).repeat(2, axis=2)},
    ),
    "batch norm": (
        [7, 9, 14, 15],
        [node("BatchNormalization", "h a b c d", "y", epsilon=0.1)],
        FOUR,
    ),
    "instance norm": ([7, 22], [node("InstanceNormalization", "h a b", "y")], FOUR),
    "layer norm": (
        [17, 18],
        [
            node("Transpose", "h", "t", perm=[0, 2, 3, 1]),
            node("LayerNormalization", "t a b", "l"),
            node("Transpose", "l", "y", perm=[0, 3, 1, 2]),
        ],
        FOUR,
    ),
    "group norm": ([21], [node("GroupNormalization", "h a b", "y", num_groups=2)], FOUR),
    "group norm, by group": ([18], [node("GroupNormalization", "h a b", "y", num_groups=2)], TWO),
    "local response norm": ([9, 18], [node("LRN", "h", "y", size=3)], {}),
    "pad, attributes": (
        [7],
        [node("Pad", "h", "y", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)],
        {},
    ),
    "pad": (
        [11, 18],
        [node("Pad", "h pads fill", "p"), node("Pad", "p pads", "y", mode="reflect")],
        {"pads": numbers(0, 0, 1, 2, 0, 0, 0, 1), "fill": np.array(0.5, np.float32)},
    ),
    "pad, axes": (
        [18, 21],
        [node("Pad", ["h", "pads", "", "axes"], "y", mode="edge")],
        {"pads": numbers(1, 2, 0, 1), "axes": numbers(-1, 2)},
    ),
    "means, attributes": (
        [7, 13],
        [node("ReduceMean", "h", "y", axes=[2, 3], keepdims=1)],
        {},
    ),
    "means, inputs": (
        [18, 21],
        [node("ReduceMean", "h axes", "logits", keepdims=0)],
        {"axes": numbers(2, -1)},
    ),
    "reductions": (
        [11, 17],
        [
            node("ReduceMax", "h", "m", axes=[1]),
            node("ReduceMin", "h", "n", axes=[1]),
            node("ReduceL2", "h", "l", axes=[1]),
            node("ReduceSumSquare", "h", "q", axes=[-1, 2, 1]),
            node("Div", "l q", "d"),
            node("Sum", "m n d", "s"),
            node("Mul", "s h", "y"),
        ],
        {},
    ),
    "reshape": (
        [7, 13, 21],
        [node("Reshape", "h shape", "flat"), node("MatMul", "flat w", "logits")],
        {"shape": numbers(0, -1), "w": RANDOM.normal(size=(224, 4)).astype(np.float32)},
    ),
    "gemm": (
        [7, 13],
        [
            node("Flatten", "h", "flat"),
            node("Gemm", "flat w b", "logits", transB=1, alpha=0.5, beta=2.0),
        ],
        {
            "w": RANDOM.normal(size=(4, 224)).astype(np.float32),
            "b": RANDOM.normal(size=(1, 4)).astype(np.float32),
        },
    ),
    "shapes computed": (
        [13, 21],
        SHAPES,
        {"zero": np.array(0), "axes": numbers(0), "rest": numbers(2, 14, 8)},
    ),
    "slices, attributes": ([9], [node("Slice", "h", "y", starts=[1], ends=[99], axes=[2])], {}),
    "slices": (
        [10, 12],
        [
            node("Slice", "h starts ends axes steps", "s"),
            node("Split", "s", "one two", axis=1, split=[3, 1]),
            node("Concat", "two one", "y", axis=1),
        ],
        {
            "starts": numbers(-1, 0),
            "ends": numbers(-99, 2**62),
            "axes": numbers(3, -2),
            "steps": numbers(-2, 2),
        },
    ),
    "split": (
        [13, 18],
        [node("Split", "h sizes", "one two", axis=1), node("Concat", "two one", "y", axis=1)],
        {"sizes": numbers(3, 1)},
    ),
    "split, equal parts": (
        [9, 13],
        [node("Split", "h", "one two", axis=1), node("Concat", "two one", "y", axis=1)],
        {},
    ),
    "split, a number of parts": (
        [18],
        [
            node("Split", "h", "one two", axis=1, num_outputs=2),
            node("Concat", "two one", "y", axis=1),
        ],
        {},
    ),
    "squeeze": (
        [9, 11],
        [
            node("GlobalAveragePool", "h", "g"),
            node("Squeeze", "g", "logits", axes=[2, 3]),
        ],
        {},
    ),
    "squeeze, inputs": (
        [13, 21],
        [
            node("GlobalAveragePool", "h", "g"),
            node("Squeeze", "g axes", "logits"),
        ],
        {"axes": numbers(3, 2)},
    ),
    "dropout": ([7, 10, 12, 18], [node("Dropout", "h", "y")], {}),
    "softmax within": ([9, 13], [node("Softmax", "h", "s", axis=1), node("Mul", "s h", "y")], {}),
    "casts": (
        [9, 13, 21],
        [
            node("Cast", "h", "d", to=DOUBLE),
            node("Mul", "d half", "m"),
            node("Cast", "m", "y", to=FLOAT),
        ],
        {"half": np.array(0.5, np.float64)},
    ),
    "constants": (
        [9, 13, 21],
        [
            helper.make_node(
                "Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))
            ),
            node("Identity", "half", "same"),
            node("Mul", "h same", "y"),
        ],
        {},
    ),
    # Beside these, each operator once, in the newest form that the oldest onnxruntime knows.
    "functions": (
        [18],
        [
            node("Sin", "h", "s"),
            node("Cos", "h", "c"),
            node("Atan", "h", "t"),
            node("Abs", "h", "b"),
            node("Add", "b one", "f"),
            node("Log", "f", "g"),
            node("Reciprocal", "f", "r"),
            node("Sum", "s c t g r", "y"),
        ],
        {"one": np.ones((), np.float32)},
    ),
    "thresholded": ([18], [node("ThresholdedRelu", "h", "y", alpha=0.5)], {}),
    "hard swish, wide": (
        [18],
        [node("Mul", "h four", "m"), node("HardSwish", "m", "y")],
        {"four": np.full((), 4, np.float32)},
    ),
    "powers": (
        [18],
        [
            node("Abs", "h", "a"),
            node("Pow", "a p", "q"),
            node("Pow", "two h", "r"),
            node("Div", "q r", "y"),
        ],
        {
            "p": RANDOM.uniform(1, 3, size=(7,)).astype(np.float32),
            "two": np.full((1, 4, 1, 1), 2.0, np.float32),
        },
    ),
    "extremes": (
        [18],
        [
            node("Transpose", "h", "t", perm=[0, 2, 1, 3]),
            node("Reshape", "t shape", "r"),
            node("Max", "h r", "m"),
            node("Min", "m one", "y"),
        ],
        {"shape": numbers(0, 4, 8, 7), "one": np.ones((), np.float32)},
    ),
    "slopes from the image": (
        [18],
        [node("GlobalAveragePool", "h", "g"), node("PRelu", "h g", "y")],
        {},
    ),
    "transposed convolution": (
        [18],
        [
            node(
                "ConvTranspose",
                "h w b",
                "y",
                strides=[2, 1],
                pads=[1, 0, 0, 1],
                output_padding=[1, 0],
                group=2,
            )
        ],
        {"w": RANDOM.normal(size=(4, 3, 3, 2)).astype(np.float32), "b": np.ones(6, np.float32)},
    ),
    "transposed convolution, same": (
        [18],
        [
            node(
                "ConvTranspose", "h w", "y", strides=[2, 2], auto_pad="SAME_UPPER", dilations=[1, 2]
            )
        ],
        {"w": RANDOM.normal(size=(4, 2, 3, 3)).astype(np.float32)},
    ),
    "transposed convolution, shape": (
        [18],
        [node("ConvTranspose", "h w", "y", strides=[2, 2], output_shape=[15, 14])],
        {"w": RANDOM.normal(size=(4, 2, 2, 3)).astype(np.float32)},
    ),
    "many channels": (
        [18],
        [
            node("Conv", "h w", "z", pads=[1, 1, 1, 1]),
            node("Conv", "z v", "y", pads=[2, 1, 1, 2], dilations=[2, 2]),
        ],
        {
            "w": RANDOM.normal(size=(24, 4, 3, 3)).astype(np.float32) / 3,
            "v": RANDOM.normal(size=(5, 24, 3, 3)).astype(np.float32) / 9,
        },
    ),
    "depthwise": (
        [18],
        [
            node("Conv", "h w", "z", pads=[1, 1, 1, 1]),
            node("Conv", "z v", "y", pads=[1, 1, 1, 1], group=24),
        ],
        {
            "w": RANDOM.normal(size=(24, 4, 3, 3)).astype(np.float32) / 3,
            "v": RANDOM.normal(size=(24, 1, 3, 3)).astype(np.float32),
        },
    ),
    "one axis": (
        [18],
        [
            node("Reshape", "h flat", "r"),
            node("Conv", "r w", "c", strides=[3], pads=[1, 2]),
            node("MaxPool", "c", "m", kernel_shape=[3], strides=[2]),
            node("AveragePool", "m", "a", kernel_shape=[2]),
            node("Unsqueeze", "a last", "y"),
        ],
        {
            "flat": numbers(0, 4, 56),
            "w": RANDOM.normal(size=(4, 4, 5)).astype(np.float32),
            "last": numbers(3),
        },
    ),
    "average pooling, even": (
        [18],
        [node("AveragePool", "h", "y", kernel_shape=[2, 7], strides=[2, 7])],
        {},
    ),
    "maximum pooling, even": (
        [18],
        [node("MaxPool", "h", "y", kernel_shape=[4, 7], strides=[4, 7])],
        {},
    ),
    "average pooling, ceiling": (
        [18],
        [node("AveragePool", "h", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "pooling of powers": (
        [18],
        [node("LpPool", "h", "y", kernel_shape=[2, 3], strides=[2, 2])],
        {},
    ),
    "norms": (
        [18],
        [
            node("LpNormalization", "h", "l", axis=1),
            node("MeanVarianceNormalization", "l", "m", axes=[2, 3]),
            node("Mul", "m h", "y"),
        ],
        {},
    ),
    "other reductions": (
        [18],
        [
            node("ReduceL1", "h axes", "a", keepdims=0),
            node("Unsqueeze", "a axes", "u"),
            node("ReduceLogSumExp", "h axes", "e"),
            node("Exp", "h", "p"),
            node("ReduceLogSum", "p axes", "g"),
            node("ReduceProd", "p axes", "d"),
            node("ReduceSum", "h axes", "s"),
            node("Sum", "u e g d s", "t"),
            node("Mul", "t h", "y"),
        ],
        {"axes": numbers(1)},
    ),
    "all at once": (
        [18],
        [
            node("Flatten", "h", "f"),
            node("ReduceSumSquare", "f axes", "q"),
            node("Div", "f q", "d"),
            node("MatMul", "d w", "logits"),
        ],
        {"axes": numbers(-1), "w": RANDOM.normal(size=(224, 4)).astype(np.float32)},
    ),
    "log softmax": ([13], [node("LogSoftmax", "h", "s", axis=1), node("Mul", "s h", "y")], {}),
    "attention": (
        [18],
        [
            node("Reshape", "h shape", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1]),
            node("MatMul", "t r", "s"),
            node("Softmax", "s", "p"),
            node("MatMul", "r p", "o"),
            node("Unsqueeze", "o last", "y"),
        ],
        {"shape": numbers(0, 4, 56), "last": numbers(3)},
    ),
    "sums of products": (
        [18],
        [
            node("Einsum", "h w", "e", equation="nchw,dc->ndhw"),
            node("Einsum", "e h", "y", equation="ncij, ncij -> ncij"),
        ],
        {"w": RANDOM.normal(size=(4, 4)).astype(np.float32)},
    ),
    "gemm, the other way": (
        [13],
        [
            node("Flatten", "h", "f"),
            node("Gemm", "w f", "g", transB=1),
            node("Gemm", "g v", "q", transA=1),
            node("Gemm", "v q", "p", transB=1),
            node("Transpose", "p", "t"),
            node("Identity", "t", "logits"),
        ],
        {
            "w": RANDOM.normal(size=(4, 224)).astype(np.float32) / 9,
            "v": RANDOM.normal(size=(4, 4)).astype(np.float32),
        },
    ),
    "expanded": (
        [18],
        [
            node("GlobalMaxPool", "h", "g"),
            node("Expand", "g size", "e"),
            node("Mul", "e h", "m"),
            node("Tile", "m twice", "y"),
        ],
        {"size": numbers(1, 1, 8, 7), "twice": numbers(1, 1, 2, 1)},
    ),
    "taken": (
        [18],
        [
            node("Gather", "h places", "g", axis=2),
            node("Gather", "g some", "q", axis=3),
            node("Gather", "q one", "o", axis=2),
            node("Unsqueeze", "o two", "y"),
        ],
        {
            "places": numbers(3, -1, 0, 3),
            "some": numbers(0, 3, 1),
            "one": np.array(1),
            "two": numbers(2),
        },
    ),
    "taken in a square": (
        [18],
        [node("Gather", "h places", "g", axis=2), node("ReduceSum", "g two", "y", keepdims=0)],
        {"places": np.array([[3, -1], [0, 3]]), "two": numbers(2)},
    ),
    "depth and space": (
        [18],
        [
            node("Slice", "h zero six three", "s"),
            node("SpaceToDepth", "s", "d", blocksize=2),
            node("DepthToSpace", "d", "e", blocksize=2),
            node("DepthToSpace", "d", "f", blocksize=2, mode="CRD"),
            node("Mul", "e f", "y"),
        ],
        {"zero": numbers(0), "six": numbers(6), "three": numbers(3)},
    ),
    "cumulated": (
        [18],
        [node("CumSum", "h axis", "c", exclusive=1), node("CumSum", "c axis", "y", reverse=1)],
        {"axis": np.array(2)},
    ),
    "resized": (
        [18],
        [
            node("Resize", ["h", "", "scales"], "a", mode="linear"),
            node(
                "Resize",
                ["a", "", "", "sizes"],
                "b",
                mode="cubic",
                axes=[2, 3],
                coordinate_transformation_mode="align_corners",
            ),
            node(
                "Resize",
                ["b", "", "more"],
                "y",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
        ],
        {
            "scales": np.array([1, 1, 1.5, 2], np.float32),
            "sizes": numbers(9, 11),
            "more": np.array([1, 1, 2, 2], np.float32),
        },
    ),
    "upsampled": (
        [9],
        [node("Upsample", "h scales", "y", mode="nearest")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "sampled": (
        [18],
        [
            node("GlobalAveragePool", "h", "g"),
            node("Slice", "g zero one axis", "o"),
            node("Tanh", "o", "move"),
            node("Mul", "move small", "moved"),
            node("Add", "grid moved", "places"),
            node("GridSample", "h places", "a"),
            node("GridSample", "h places", "b", padding_mode="border", align_corners=1),
            node("Add", "a b", "y"),
        ],
        {
            "zero": numbers(0),
            "one": numbers(1),
            "axis": numbers(1),
            "small": np.full((), 0.1, np.float32),
            "grid": RANDOM.uniform(-1.3, 1.3, size=(1, 5, 6, 2)).astype(np.float32),
        },
    ),
    "pads of images": (
        [18],
        [node("Pad", "h pads", "y", mode="edge")],
        {"pads": numbers(0, 0, 2, 1, 0, 0, 1, 3)},
    ),
    "pads taken away": (
        [18],
        [node("Pad", "h pads", "y")],
        {"pads": numbers(0, 0, -2, 1, 0, 0, -1, 3)},
    ),
    "like": ([18], [node("CastLike", "h one", "y")], {"one": np.ones((), np.float32)}),
    "shared": (
        [18],
        [node("Mul", "h h", "m"), node("Identity", "m", "i"), node("Sub", "i h", "y")],
        {},
    ),
    "swish": ([24], [node("Swish", "h", "y", alpha=1.5)], {}),
}
