from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from litmus.architectures import ARCHITECTURES
from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats import onnx_file
from litmus.formats.gradients import GRADIENTS, OnnxGradients
from litmus.formats.onnx_export import export_onnx
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.torch_gradients import TorchGradients
from litmus.inversion.search import cross_entropy
from litmus.models import Images, InputSpec, log_probabilities
from tests.formats.onnx_models import classifier, finished, save

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


def is_right(model: onnx_file.OnnxModel) -> None:
    """Logits are the model's, and gradients what small changes of the images tell."""
    gradients = model.gradients()
    assert isinstance(gradients, OnnxGradients)
    random = np.random.default_rng(5)
    for count in (1, 3):
        pixels = random.uniform(0.1, 0.9, (count, *model.input_spec.image_shape))
        images = (np.rint(pixels * 255) / 255).astype(np.float32)
        expected = log_probabilities(model(images), model.outputs)
        targets = expected.argmin(axis=1)  # where no softmax is saturated
        logits, found = gradients.descend(images, targets)
        assert logits.dtype == found.dtype == np.float32
        assert found.shape == images.shape
        np.testing.assert_allclose(log_probabilities(logits), expected, atol=2e-2)
        np.testing.assert_allclose(gradients.logits(images), logits, rtol=1e-4, atol=1e-4)
        assert np.abs(found).max(axis=(1, 2, 3)).min() > 0
        follows(gradients, images, targets, found)


def follows(
    gradients: OnnxGradients, images: Images, targets: NDArray[np.int64], found: Images
) -> None:
    """Along most of some directions: a kink may lie within a step of one."""
    random, right = np.random.default_rng(6), []
    for _ in range(9):
        step = (random.choice([-1, 1], images.shape) * 2e-3).astype(np.float32)
        if gradients._input.dtype == "uint8":
            step = (np.sign(step) / 255).astype(np.float32)
        there, back = (
            cross_entropy(gradients.logits(images + sign * step), targets) for sign in (1, -1)
        )
        told = (found.astype(np.float64) * step).sum(axis=(1, 2, 3))
        scale = np.abs(found * step).max() * np.sqrt(found[0].size)
        right.append(np.abs((there - back) / 2 - told) <= 0.05 * scale + 1e-5)
    assert (np.mean(right, axis=0) > 0.5).all()


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
    "logarithms, waves": (
        [13, 18],
        [
            node("Abs", "h", "a"),
            node("Add", "a one", "b"),
            node("Log", "b", "l"),
            node("Reciprocal", "b", "r"),
            node("Sin", "h", "s"),
            node("Cos", "s", "c"),
            node("Min", "c l", "m"),
            node("Mul", "m r", "y"),
        ],
        {"one": np.ones((), np.float32)},
    ),
    "cast like": ([15, 21], [node("CastLike", "h one", "y")], {"one": np.ones((), np.float32)}),
    "transposed convolution": (
        [11, 18],
        [
            node("ConvTranspose", "h w", "t", strides=[2, 2], output_padding=[1, 1]),
            node("ConvTranspose", "t v", "y", pads=[1, 1, 1, 1], group=2),
        ],
        {"w": RANDOM.normal(size=(4, 4, 3, 3)).astype(np.float32) / 3, "v": OTHER},
    ),
    "depth and space": (
        [13],
        [
            node("DepthToSpace", "h", "s", blocksize=2),
            node("DepthToSpace", "h", "t", blocksize=2, mode="CRD"),
            node("Mul", "s t", "p"),
            node("SpaceToDepth", "p", "y", blocksize=2),
        ],
        {},
    ),
    "enlarging": (
        [13, 19],
        [
            node("Resize", ["h", "", "larger"], "a", mode="nearest"),
            node("Resize", ["a", "", "smaller"], "b", mode="linear"),
            node("Tile", "b repeats", "c"),
            node("ReduceSum", "c axes", "d", keepdims=1),
            node("Expand", "d shape", "e"),
            node("Mul", "e e", "y"),
        ],
        {
            "larger": np.array([1, 1, 2, 2], np.float32),
            "smaller": np.array([1, 1, 0.7, 1.3], np.float32),
            "repeats": numbers(1, 1, 1, 2),
            "axes": numbers(2),
            "shape": numbers(1, 1, 3, 1),
        },
    ),
    "norms": (
        [13, 18],
        [
            node("Abs", "h", "a"),
            node("LogSoftmax", "h", "l", axis=1),
            node("Sub", "a l", "y"),
        ],
        {},
    ),
    "reductions of rows": (
        [18],
        [
            node("ReduceL1", "h axes", "a"),
            node("ReduceLogSumExp", "h axes", "b"),
            node("Mul", "a b", "y"),
        ],
        {"axes": numbers(3)},
    ),
    "grid": (
        [18],
        [
            node("Slice", "h zero two one", "g0"),
            node("Tanh", "g0", "g1"),
            node("Transpose", "g1", "g2", perm=[0, 2, 3, 1]),
            node("GridSample", "h g2", "y", mode="bilinear"),
        ],
        {"zero": numbers(0), "two": numbers(2), "one": numbers(1)},
    ),
}


def cases() -> list[Any]:
    return [
        pytest.param(name, opset, id=f"{name}-{opset}")
        for name, (opsets, _, _) in CASES.items()
        for opset in opsets
    ]


@pytest.mark.parametrize(("name", "opset"), cases())
def test_operators_have_their_gradients(name: str, opset: int, tmp_path: Path) -> None:
    _, nodes, arrays = CASES[name]
    path = save(network(nodes, arrays, opset), tmp_path / "m.onnx")
    is_right(onnx_file.load(path))


@pytest.mark.parametrize("ending", [("Softmax",), ("LogSoftmax",), ("Softmax", "Log"), ()])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_layouts_endings_and_batches(
    tmp_path: Path, ending: tuple[str, ...], layout: str, batch: int | str
) -> None:
    model = classifier(spec=SPEC, ending=ending, layout=layout, batch=batch)
    loaded = onnx_file.load(save(model, tmp_path / "m.onnx"))
    is_right(loaded)
    assert loaded.gradients() is loaded.gradients()


def test_preprocessing_is_inside(tmp_path: Path) -> None:
    path = save(classifier(spec=SPEC), tmp_path / "m.onnx")
    stated = Preprocessing(scale=255.0, mean=(100.0, 110.0, 120.0), std=50.0, channels="bgr")
    is_right(onnx_file.load(path, stated))
    model = onnx_file.load(path)
    before = model.gradients()
    fed_otherwise = model.with_preprocessing(stated)
    is_right(fed_otherwise)
    assert fed_otherwise.gradients() is not before
    assert model.gradients() is before


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_inputs_of_other_types(tmp_path: Path, dtype: int) -> None:
    is_right(onnx_file.load(save(classifier(spec=SPEC, dtype=dtype), tmp_path / "m.onnx")))


def test_weights_in_float16(tmp_path: Path) -> None:
    model = classifier(spec=SPEC)
    halved = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(halved, "half"))
    model.graph.node.insert(0, node("Cast", "half", "w", to=FLOAT))
    is_right(onnx_file.load(save(model, tmp_path / "m.onnx")))


def test_probabilities_that_no_softmax_gives_become_logits(tmp_path: Path) -> None:
    nodes = [
        node("Flatten", "h", "flat"),
        node("MatMul", "flat w", "z"),
        node("Exp", "z", "e"),
        node("ReduceSum", "e", "sum", axes=[1]),
        node("Div", "e sum", "p"),
    ]
    w = RANDOM.normal(size=(224, 4)).astype(np.float32) / 100
    loaded = onnx_file.load(save(network(nodes, {"w": w}, 11), tmp_path / "m.onnx"))
    assert loaded.outputs == "probabilities"
    is_right(loaded)


FIXED: dict[str, Case] = {
    # What is reshaped has the batch in front, and a constant that only looks like it.
    "reshaped": (
        [13],
        [
            node("Reshape", "a channels", "gain"),
            node("Mul", "h gain", "m"),
            node("Reshape", "m shape", "flat"),
            node("MatMul", "flat w", "logits"),
        ],
        {
            "a": FOUR["a"],
            "channels": numbers(1, -1, 1, 1),
            "shape": numbers(1, -1),
            "w": RANDOM.normal(size=(224, 4)).astype(np.float32),
        },
    ),
    # A class token, say: the batch cannot be told from any other number.
    "joined": (
        [13],
        [node("Concat", "h token", "j", axis=2), node("Relu", "j", "y")],
        {"token": RANDOM.normal(size=(1, 4, 1, 7)).astype(np.float32)},
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_graph_for_one_image_takes_any_number(name: str, tmp_path: Path) -> None:
    _, nodes, arrays = FIXED[name]
    path = save(network(nodes, arrays, 13, batch=1), tmp_path / "m.onnx")
    is_right(onnx_file.load(path))


def test_local_functions_and_what_leads_nowhere(tmp_path: Path) -> None:
    model = network([node("Double", "h", "y", domain="here")], {}, 17)
    body = [node("Add", "a a", "b")]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("here", "Double", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("here", 1))
    # An operator without conversion, and a second output that is not read.
    model.graph.node.append(node("ThresholdedRelu", "h", "unread"))
    is_right(onnx_file.load(save(model, tmp_path / "m.onnx")))


def refused(model: onnx.ModelProto, folder: Path) -> str:
    path = save(model, folder / "m.onnx")
    loaded = onnx_file.load(path)
    with pytest.raises(UnsupportedModelError) as caught:
        loaded.gradients()
    return str(caught.value).removeprefix(f"{path}: ")


def test_an_operator_without_gradient_is_named(tmp_path: Path) -> None:
    said = refused(network([node("ThresholdedRelu", "h", "y")], {}, 13), tmp_path)
    assert said == "no gradients: its operator ThresholdedRelu has no gradient here"
    pooled = [node("AveragePool", "h", "y", kernel_shape=[2, 2], dilations=[2, 2])]
    assert "its AveragePool has no gradient" in refused(network(pooled, {}, 19), tmp_path)


def test_quantised_values_are_passed_straight_through(tmp_path: Path) -> None:
    scale: Arrays = {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
    nodes = [
        node("QuantizeLinear", "h scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "y"),
    ]
    quantised, plain = (
        onnx_file.load(save(network(each, scale, 13), tmp_path / f"{name}.onnx")).gradients()
        for name, each in (("q", nodes), ("p", [node("Identity", "h", "y")]))
    )
    images = RANDOM.random((2, *SPEC.image_shape)).astype(np.float32)
    targets = np.array([0, 1])
    through, straight = (each.descend(images, targets)[1] for each in (quantised, plain))
    cosine = (through * straight).sum() / np.linalg.norm(through) / np.linalg.norm(straight)
    assert cosine > 0.95


def test_the_margin_is_that_to_the_largest_other(tmp_path: Path) -> None:
    model = onnx_file.load(save(classifier(spec=SPEC), tmp_path / "m.onnx"))
    gradients = model.gradients()
    images = RANDOM.random((3, *SPEC.image_shape)).astype(np.float32)
    logits = gradients.logits(images)
    targets = logits.argmin(axis=1)
    others = np.where(np.eye(4, dtype=bool)[targets], -np.inf, logits).argmax(axis=1)
    _, found = gradients.descend(images, targets, "margin")
    step = (RANDOM.choice([-1, 1], images.shape) * 1e-3).astype(np.float32)
    sides = [gradients.logits(images + sign * step) for sign in (1, -1)]
    margins = [z[np.arange(3), others] - z[np.arange(3), targets] for z in sides]
    told = (found * step).sum(axis=(1, 2, 3))
    np.testing.assert_allclose((margins[0] - margins[1]) / 2, told, atol=1e-4, rtol=0.05)


def test_every_rule_has_a_case() -> None:
    nodes = [n for _, each, _ in [*CASES.values(), *FIXED.values()] for n in each]
    used = {n.op_type for n in nodes} | {"Conv", "Gemm", "Flatten", "GlobalAveragePool"}
    used |= {"QuantizeLinear", "DequantizeLinear"}
    assert set(GRADIENTS) - used == set()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_have_pytorchs_gradients(name: str, tmp_path: Path) -> None:
    spec = InputSpec(channels=3, height=32, width=32, num_classes=10)
    module = ARCHITECTURES[name]().build(spec, seed=3).eval()
    export_onnx(module, spec, tmp_path / "m.onnx")
    images = np.random.default_rng(0).random((5, *spec.image_shape)).astype(np.float32)
    targets = np.arange(5)
    own = TorchGradients(module, spec).descend(images, targets)
    found = onnx_file.load(tmp_path / "m.onnx").gradients().descend(images, targets)
    for a, b in zip(found, own, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * float(np.abs(b).max()) + 1e-9)


def test_a_network_without_gradients_is_refused(tmp_path: Path) -> None:
    whole = [node("Cast", "h", "i", to=INT64), node("Cast", "i", "y", to=FLOAT)]
    assert "no gradient" in refused(network(whole, {}, 13), tmp_path)


def test_gradients_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    # The root of 0, whose slope is infinite.
    nodes = [
        node("Relu", "h", "r"),
        node("Sub", "r r", "o"),
        node("Sqrt", "o", "s"),
        node("Add", "s h", "y"),
    ]
    assert "not numbers" in refused(network(nodes, {}, 13), tmp_path)


def test_answers_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    nodes = [node("Sub", "h h", "o"), node("Div", "o o", "y")]
    loaded = onnx_file.load(save(network(nodes, {}, 13), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="not numbers"):
        loaded.gradients()


def test_the_names_in_a_file_are_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    names = [
        f'x"), __import__("pathlib").Path("{canary}").touch(), ("',
        f'x"\n__import__("pathlib").Path("{canary}").touch()\n#',
        "forward",
        "__class__",
        "",
        "constant_0",
    ]
    nodes = [node("Relu", ["h" if i == 0 else f"{names[i - 1]}v"], "y") for i in range(len(names))]
    for each, name in zip(nodes, names, strict=True):
        each.name, each.output[0] = name, f"{name}v"
    nodes.append(node("Identity", [f"{names[-1]}v"], "y"))
    is_right(onnx_file.load(save(network(nodes, {}, 13), tmp_path / "m.onnx")))
    assert not canary.exists()
