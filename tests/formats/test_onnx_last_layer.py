from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from litmus.architectures import ARCHITECTURES
from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.onnx_last_layer import last_layer
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.torch_model import TorchModel
from litmus.models import InputSpec, LastLayer
from tests.architectures.variants import Options
from tests.formats.onnx_models import classifier, finished, save, weights

SPEC = InputSpec(channels=3, height=4, width=2, num_classes=3)
FEATURES = 24
RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(3, FEATURES)).astype(np.float32)
B = RANDOM.normal(size=3).astype(np.float32)
KERNEL = RANDOM.normal(size=(3, 3, 1, 1)).astype(np.float32)
Arrays = dict[str, NDArray[Any]]


def node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def graph(nodes: Sequence[NodeProto], arrays: Arrays, opset: int = 13) -> onnx.ModelProto:
    """A model from `x`, images of SPEC, to the last node's output; `flat` is x flattened."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SPEC.image_shape])
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", 3])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    whole = [node("Flatten", "x", "flat"), *nodes]
    return finished(helper.make_graph(whole, "g", [x], [y], tensors), opset)


def read(model: onnx.ModelProto, folder: Path, **options: Any) -> LastLayer:
    """The last layer of the file, which must be one that onnxruntime runs."""
    loaded = onnx_file.load(save(model, folder / "m.onnx"), Preprocessing(**options))
    assert loaded(np.zeros((2, *SPEC.image_shape), np.float32)).shape == (2, 3)
    return loaded.last_layer()


def same(actual: LastLayer, w: NDArray[Any], b: NDArray[Any]) -> None:
    assert all(array.dtype == np.float64 for array in actual)
    np.testing.assert_allclose(actual[0], w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual[1], b, rtol=1e-5, atol=1e-6)


GRAPHS: dict[str, tuple[list[NodeProto], Arrays]] = {
    "gemm": ([node("Gemm", "flat w b", "y")], {"w": W.T, "b": B}),
    "gemm transB": ([node("Gemm", "flat w b", "y", transB=1)], {"w": W, "b": B}),
    "gemm factors": (
        [node("Gemm", "flat w b", "y", transB=1, alpha=0.5, beta=2.0)],
        {"w": 2 * W, "b": B[None] / 2},
    ),
    "matmul and add": (
        [node("MatMul", "flat w", "m"), node("Add", "m b", "y")],
        {"w": W.T, "b": B},
    ),
    "add the other way round": (
        [node("MatMul", "flat w", "m"), node("Add", "b m", "y")],
        {"w": W.T, "b": B[None]},
    ),
    "softmax": (
        [node("Gemm", "flat w b", "z", transB=1), node("Softmax", "z", "y", axis=1)],
        {"w": W, "b": B},
    ),
    "log-softmax, reshaped": (
        [
            node("Gemm", "flat w b", "z", transB=1),
            node("LogSoftmax", "z", "l", axis=1),
            node("Identity", "l", "y"),
        ],
        {"w": W, "b": B},
    ),
    "transposed weights": (
        [
            node("Transpose", "w", "t", perm=[1, 0]),
            node("MatMul", "flat t", "m"),
            node("Sub", "m b", "y"),
        ],
        {"w": W, "b": -B},
    ),
    "weights in half precision": (
        [
            node("Cast", "w", "f", to=TensorProto.FLOAT),
            node("Gemm", "flat f b", "y", transB=1),
        ],
        {"w": W.astype(np.float16), "b": B},
    ),
    "a temperature": (
        [
            node("Gemm", "flat w b", "z", transB=1),
            node("Mul", "two z", "d"),
            node("Div", "d four", "y"),
        ],
        {"w": 2 * W, "b": 2 * B, "two": np.array(2, np.float32), "four": np.array([4], np.float32)},
    ),
    "a norm behind": (
        [
            node("Gemm", "flat w b", "z", transB=1),
            node("BatchNormalization", "z gain shift mean var", "y", epsilon=0.0),
        ],
        {
            "w": W,
            "b": B - 1,
            "gain": np.full(3, 6, np.float32),
            "shift": np.full(3, 2, np.float32),
            "mean": np.zeros(3, np.float32),
            "var": np.full(3, 36, np.float32),
        },
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_hand_made_graphs(name: str, tmp_path: Path) -> None:
    actual = read(graph(*GRAPHS[name]), tmp_path)
    shift = 1 if name == "a norm behind" else 0
    rtol = 1e-3 if "half" in name else 1e-5
    np.testing.assert_allclose(actual[0], W, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(actual[1], B + shift, rtol=1e-5, atol=1e-6)


def test_a_layer_without_a_bias_has_zeros(tmp_path: Path) -> None:
    same(read(graph([node("MatMul", "flat w", "y")], {"w": W.T}), tmp_path), W, np.zeros(3))
    same(read(graph([node("Gemm", "flat w", "y")], {"w": W.T}), tmp_path), W, np.zeros(3))


def test_weights_in_a_constant_node(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(W, "w")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        node("Gemm", "flat w b", "y", transB=1),
    ]
    same(read(graph(nodes, {"b": B}), tmp_path), W, B)


@pytest.mark.parametrize("axis", [0, None])
def test_quantised_weights(axis: int | None, tmp_path: Path) -> None:
    scale = np.float32(0.05) if axis is None else np.array([0.05, 0.02, 0.1], np.float32)
    zero = np.int8(3) if axis is None else np.array([3, 0, -2], np.int8)
    column = scale if axis is None else scale[:, None]  # type: ignore[index]
    shift = zero if axis is None else zero[:, None]  # type: ignore[index]
    quantised = np.clip(np.round(W / column) + shift, -128, 127).astype(np.int8)
    options = {} if axis is None else {"axis": axis}
    nodes = [
        node("DequantizeLinear", "q s z", "w", **options),
        node("Gemm", "flat w b", "u", transB=1),
        # Outputs that are quantised and back again mean the same.
        node("QuantizeLinear", "u os oz", "uq"),
        node("DequantizeLinear", "uq os oz", "y"),
    ]
    arrays: Arrays = {
        "q": quantised,
        "s": np.asarray(scale),
        "z": np.asarray(zero),
        "b": B,
        "os": np.array(0.1, np.float32),
        "oz": np.array(0, np.int8),
    }
    expected = (quantised.astype(np.float64) - shift) * column
    same(read(graph(nodes, arrays), tmp_path), expected, B)


AVERAGES: dict[str, list[NodeProto]] = {
    "global": [node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "y")],
    "mean": [node("ReduceMean", "c", "y", axes=[2, 3], keepdims=0)],
    "squeezed": [
        node("AveragePool", "c", "p", kernel_shape=[4, 2]),
        node("Squeeze", "p axes", "y"),
    ],
    "channels last": [
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Add", "t more", "a"),
        node("ReduceMean", "a", "y", axes=[1, 2], keepdims=0),
    ],
    "reshaped": [node("GlobalAveragePool", "c", "p"), node("Reshape", "p shape", "y")],
}


@pytest.mark.parametrize("name", AVERAGES)
def test_a_convolution_whose_maps_are_averaged(name: str, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w b", "c"), *AVERAGES[name]]
    arrays: Arrays = {
        "w": KERNEL,
        "b": B,
        "axes": np.array([2, 3]),
        "shape": np.array([-1, 3]),
        "more": np.array([1, 2, 3], np.float32),
    }
    extra = [1, 2, 3] if name == "channels last" else [0, 0, 0]
    same(read(graph(nodes, arrays), tmp_path), KERNEL[:, :, 0, 0], B + extra)


def test_what_was_cut_off_or_stated_does_not_matter(tmp_path: Path) -> None:
    expected = weights().T
    for ending in [(), ("Softmax:1",), ("Softmax:1", "Log"), ("Identity", "LogSoftmax:1")]:
        for outputs in ("auto", "logits"):
            model = onnx_file.load(
                save(classifier(ending=ending), tmp_path / "m.onnx"),
                Preprocessing(outputs=outputs),
            )
            same(model.last_layer(), expected, np.zeros(4))


REFUSED: dict[str, tuple[list[NodeProto], Arrays, str]] = {
    "an activation behind": (
        [node("Gemm", "flat w b", "z", transB=1), node("Relu", "z", "y")],
        {"w": W, "b": B},
        "got Relu",
    ),
    "weights that are computed": (
        [node("Abs", "w", "v"), node("Gemm", "flat v b", "y", transB=1)],
        {"w": W, "b": B},
        "not constant",
    ),
    "a bias that is computed": (
        [
            node("MatMul", "flat w", "m"),
            node("ReduceMean", "flat", "r", axes=[1]),
            node("Add", "m r", "y"),
        ],
        {"w": W.T},
        "Add with none",
    ),
    "a wider kernel": (
        [node("Conv", "x w b", "c"), node("Flatten", "c", "y")],
        {"w": RANDOM.normal(size=(3, 3, 4, 2)).astype(np.float32), "b": B},
        r"Conv with \(3, 3, 4, 2\)",
    ),
    "a softmax in the middle": (
        [
            node("Gemm", "flat w b", "z", transB=1),
            node("Softmax", "z", "s", axis=1),
            node("Mul", "s two", "y"),
        ],
        {"w": W, "b": B, "two": np.array(2, np.float32)},
        "got Softmax",
    ),
    "places that are classes": (
        [node("Conv", "x w", "c"), node("Reshape", "c shape", "y")],
        {"w": KERNEL[:1], "shape": np.array([-1, 3])},
        r"weights \(1, 3\) for 3 classes",
    ),
    "no layer at all": (
        [node("Slice", "flat from to axes", "y")],
        {"from": np.array([0]), "to": np.array([3]), "axes": np.array([1])},
        "got Slice",
    ),
    "only passing on": (
        [node("ReduceMean", "x", "p", axes=[2, 3], keepdims=0), node("Identity", "p", "y")],
        {},
        "input or a constant",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_last_layer_is_unsupported(name: str) -> None:
    nodes, arrays, fault = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=f"m.onnx: .*last layer .*{fault}"):
        last_layer(graph(nodes, arrays).graph, 3, "m.onnx")


def test_a_hostile_graph_is_an_error_and_ends() -> None:
    circle = graph(
        [node("Identity", "b", "a"), node("Identity", "a", "b"), node("Identity", "a", "y")], {}
    )
    with pytest.raises(UnsupportedModelError):
        last_layer(circle.graph, 3, "m.onnx")
    endless = graph([node("Identity", "v", "v"), node("Gemm", "flat v", "y")], {})
    with pytest.raises(UnsupportedModelError, match="not constant"):
        last_layer(endless.graph, 3, "m.onnx")
    # Each is dequantised with itself: without a limit of depth, three times the work a step.
    parts = [node("DequantizeLinear", f"v{i} v{i} v{i}", f"v{i + 1}") for i in range(60)]
    tower = graph([*parts, node("Gemm", "flat v60", "y")], {"v0": W})
    with pytest.raises(UnsupportedModelError, match="not constant"):
        last_layer(tower.graph, 3, "m.onnx")
    foreign = graph([node("Gemm", "flat w", "y")], {"w": W.T})
    foreign.graph.node[-1].domain = "evil"
    with pytest.raises(UnsupportedModelError, match=r"evil\.Gemm"):
        last_layer(foreign.graph, 3, "m.onnx")


@pytest.mark.parametrize("dims", [(24, 4), (2**40, 3), (0, 3), (3,)])
def test_a_tensor_that_lies_about_its_shape_is_an_error(dims: tuple[int, ...]) -> None:
    model = graph([node("Gemm", "flat w", "y")], {"w": W.T})
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    with pytest.raises(ModelError):
        last_layer(model.graph, 3, "m.onnx")


def test_a_bias_of_another_size_is_unsupported() -> None:
    model = graph([node("Gemm", "flat w b", "y", transB=1)], {"w": W, "b": np.ones(2, np.float32)})
    with pytest.raises(UnsupportedModelError, match=r"Gemm with \(2,\)"):
        last_layer(model.graph, 3, "m.onnx")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg", {"width": 2, "stem_stride": 2}),
        ("lenet5", {}),
        ("resnet", {"width": 4, "stem_stride": 2}),
        ("nin", {"channels": (4, 6)}),
        ("vgg_stn", {"stem": 4, "channels": (3,), "input_scaling": "standard"}),
    ],
)
def test_a_network_and_its_export_have_the_same_last_layer(
    name: str, options: Options, tmp_path: Path
) -> None:
    spec = InputSpec(channels=1, height=16, width=16, num_classes=3)
    module = ARCHITECTURES[name](**options).build(spec, seed=1).eval()
    expected = TorchModel(module, spec).last_layer()
    linear = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    assert linear.bias is not None
    same(expected, linear.weight.detach().flatten(1).numpy(), linear.bias.detach().numpy())
    for softmax in (False, True):
        path = export_onnx(module, spec, tmp_path / "m.onnx", softmax=softmax)
        same(onnx_file.load(path).last_layer(), *expected)


def fixed_linear() -> nn.Linear:
    """A layer of the weights W, whose outputs are far from zero, where tanh would be linear."""
    linear = nn.Linear(FEATURES, 3)
    linear.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(B)})
    return linear


class TestTorch:
    def last(self, *layers: nn.Module, **options: Any) -> LastLayer:
        return TorchModel(nn.Sequential(*layers), SPEC, **options).last_layer()

    def test_a_norm_and_a_softmax_behind_are_read_through(self) -> None:
        torch.manual_seed(0)
        linear, norm = nn.Linear(24, 3, bias=False), nn.BatchNorm1d(3)
        norm.running_mean = torch.tensor([1.0, 2, 3])
        norm.running_var = torch.tensor([4.0, 9, 16])
        factor = 1 / np.sqrt(np.array([4, 9, 16]) + norm.eps)
        w = linear.weight.detach().numpy() * factor[:, None]
        same(self.last(nn.Flatten(), linear, norm), w, -np.array([1, 2, 3]) * factor)
        plain = linear.weight.detach().numpy()
        for behind, kind in ((nn.LogSoftmax(1), "logits"), (nn.Softmax(1), "probabilities")):
            same(self.last(nn.Flatten(), linear, behind, outputs=kind), plain, np.zeros(3))

    @pytest.mark.parametrize(
        ("layers", "fault"),
        [
            ([nn.Flatten(), fixed_linear(), nn.Tanh()], "not those of the last layer"),
            ([nn.Flatten(), fixed_linear(), nn.Softmax(1)], "not those of the last layer"),
            ([nn.Conv2d(3, 3, (4, 2)), nn.Flatten()], "no 1x1 convolution"),
            ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], "no linear layer"),
            ([nn.Flatten(), nn.Linear(24, 6), nn.MaxPool1d(2)], "another shape"),
        ],
    )
    def test_networks_that_end_otherwise_are_unsupported(
        self, layers: list[nn.Module], fault: str
    ) -> None:
        with pytest.raises(UnsupportedModelError, match=fault):
            self.last(*layers)
