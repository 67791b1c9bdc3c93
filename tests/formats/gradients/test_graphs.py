"""Whole graphs: their inputs, outputs and batches, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats import gradients as table
from litmus.formats import onnx_file
from litmus.formats.onnx_file import OnnxModel
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.resizing import ResizedModel
from litmus.models import InputSpec
from tests.formats.gradients.cases import (
    FLOAT,
    FOUR,
    INT64,
    RANDOM,
    SPEC,
    Arrays,
    network,
    node,
    numbers,
)
from tests.formats.gradients.test_operators import images, is_the_slope
from tests.formats.onnx_models import classifier, save


def loaded(
    model: onnx.ModelProto, folder: Path, preprocessing: Preprocessing | None = None
) -> OnnxModel:
    return onnx_file.load(save(model, folder / "m.onnx"), preprocessing)


def is_right(model: OnnxModel) -> None:
    x = images(model.input_spec, 3)
    gradients = model.gradients()
    assert gradients.input_spec == model.input_spec
    expected = model(x)
    limit = 1e-3 * max(1.0, float(np.abs(expected).max()))
    rows, _ = gradients.descend(x, np.zeros(3, np.int64))
    for found in (rows, gradients.logits(x)):
        np.testing.assert_allclose(found, expected, atol=limit)
    is_the_slope(gradients, x)


@pytest.mark.parametrize("ending", [("Softmax",), ("LogSoftmax",), ("Softmax", "Log"), ()])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_layouts_endings_and_batches(
    tmp_path: Path, ending: tuple[str, ...], layout: str, batch: int | str
) -> None:
    made = classifier(spec=SPEC, ending=ending, layout=layout, batch=batch, gain=0.1)
    model = loaded(made, tmp_path)
    is_right(model)
    assert model.gradients() is model.gradients()


def test_preprocessing_is_inside(tmp_path: Path) -> None:
    made = classifier(spec=SPEC, gain=0.1)
    stated = Preprocessing(scale=255.0, mean=(100.0, 110.0, 120.0), std=90.0, channels="bgr")
    is_right(loaded(made, tmp_path, stated))
    model = loaded(made, tmp_path)
    before = model.gradients()
    fed_otherwise = model.with_preprocessing(stated)
    is_right(fed_otherwise)
    assert model.gradients() is before


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_inputs_of_other_types(tmp_path: Path, dtype: int) -> None:
    gain = 0.001 if dtype == TensorProto.UINT8 else 0.1
    is_right(loaded(classifier(spec=SPEC, dtype=dtype, gain=gain), tmp_path))


def test_weights_in_float16(tmp_path: Path) -> None:
    model = classifier(spec=SPEC, gain=0.1)
    halved = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(halved, "half"))
    model.graph.node.insert(0, node("Cast", "half", "w", to=FLOAT))
    is_right(loaded(model, tmp_path))


def test_probabilities_become_their_floored_logarithms(tmp_path: Path) -> None:
    nodes = [
        node("Flatten", "h", "flat"),
        node("MatMul", "flat w", "z"),
        node("Exp", "z", "e"),
        node("ReduceSum", "e", "sum", axes=[1]),
        node("Div", "e sum", "p"),
    ]
    w = RANDOM.normal(size=(224, 4)).astype(np.float32) / 100
    model = loaded(network(nodes, {"w": w}, 11), tmp_path)
    assert model.outputs == "probabilities"
    x = images(SPEC, 3)
    gradients = model.gradients()
    np.testing.assert_allclose(gradients.logits(x), np.log(model(x)), atol=1e-5)
    is_the_slope(gradients, x)


def test_the_margin_goes_towards_the_target_from_the_largest_other(tmp_path: Path) -> None:
    made = classifier(spec=SPEC, gain=0.1)
    weights = numpy_helper.to_array(made.graph.initializer[0])
    x, targets = images(SPEC, 5), np.array([0, 1, 2, 3, 0])
    logits, found = loaded(made, tmp_path).gradients().descend(x, targets, "margin")
    others = logits.copy()
    others[np.arange(5), targets] = -np.inf
    expected = (weights[:, others.argmax(axis=1)] - weights[:, targets]).T
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-6)


def test_reshapes_to_a_fixed_batch(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", "a channels", "gain"),
        node("Mul", "h gain", "m"),
        node("Reshape", "m shape", "flat"),
        node("MatMul", "flat w", "logits"),
    ]
    arrays: Arrays = {
        "a": FOUR["a"],
        "channels": numbers(1, -1, 1, 1),
        "shape": numbers(1, -1),
        "w": RANDOM.normal(size=(224, 4)).astype(np.float32) / 10,
    }
    is_right(loaded(network(nodes, arrays, 13, batch=1), tmp_path))


def test_local_functions_and_what_leads_nowhere(tmp_path: Path) -> None:
    model = network([node("Double", "h", "y", domain="here")], {}, 17)
    body = [node("Add", "a a", "b")]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("here", "Double", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("here", 1))
    # An operator without a gradient, and a second output that is not read.
    model.graph.node.append(node("Det", "h", "unread"))
    model.graph.node[-1].input[0] = "square"
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "square"))
    is_right(loaded(model, tmp_path))


def branching(condition: str) -> onnx.ModelProto:
    """An If between h and its double, each with names that the other has, too."""
    y = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    one = helper.make_graph([node("Add", "h h", "inner")], "one", [], [y])
    two = helper.make_graph([node("Identity", "h", "inner")], "two", [], [y])
    chosen = node("If", condition, "y", then_branch=one, else_branch=two)
    nodes = [
        node("Shape", "h", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank four", "flat"),
        node("ReduceSum", "h", "sum", keepdims=0),
        node("Greater", "sum zero", "bright"),
        chosen,
    ]
    return network(nodes, {"four": np.array(4), "zero": np.zeros((), np.float32)}, 13)


def test_a_branch_that_no_image_decides_takes_its_place(tmp_path: Path) -> None:
    is_right(loaded(branching("flat"), tmp_path))


def refused(model: onnx.ModelProto, folder: Path) -> str:
    found = loaded(model, folder)
    with pytest.raises(UnsupportedModelError) as caught:
        found.gradients()
    return str(caught.value).removeprefix(f"{folder / 'm.onnx'}: ")


def test_what_has_no_gradient_is_named(tmp_path: Path) -> None:
    assert refused(branching("bright"), tmp_path) == "its If has no gradient"
    said = refused(network([node("Asinh", "h", "y")], {}, 13), tmp_path)
    assert said == "its Asinh has no gradient"
    cropped = [
        node("Resize", "h box none size", "y", coordinate_transformation_mode="tf_crop_and_resize")
    ]
    arrays: Arrays = {
        "box": np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], np.float32),
        "none": np.zeros(0, np.float32),
        "size": numbers(1, 4, 4, 4),
    }
    said = refused(network(cropped, arrays, 13, batch=1), tmp_path)
    assert said.startswith("its Resize has no gradient")


@pytest.mark.parametrize("name", ["Floor", "Round", "Sign", "Ceil"])
def test_flat_operators_block_the_way_and_no_other(name: str, tmp_path: Path) -> None:
    assert name in table.FLAT
    nodes = [node(name, "h", "f"), node("Mul", "f zero", "z"), node("Add", "h z", "y")]
    is_right(loaded(network(nodes, {"zero": np.zeros((), np.float32)}, 13), tmp_path))
    assert "no gradient" in refused(network([node(name, "h", "y")], {}, 13), tmp_path)


def test_a_network_without_gradients_is_refused(tmp_path: Path) -> None:
    whole = [node("Cast", "h", "i", to=INT64), node("Cast", "i", "y", to=FLOAT)]
    assert "no gradient of its outputs" in refused(network(whole, {}, 13), tmp_path)
    zero = network([node("Mul", "h zero", "y")], {"zero": np.zeros((), np.float32)}, 13)
    assert "no gradient of its outputs" in refused(zero, tmp_path)


def test_other_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "litmus.formats.gradients.forward.fold_batch_norms",
        lambda model: model.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(
                2 * numpy_helper.to_array(model.graph.initializer[0]),
                model.graph.initializer[0].name,
            )
        ),
    )
    said = refused(network([node("Relu", "h", "y")], {}, 18), tmp_path)
    assert said.startswith("with its gradients, the model answers otherwise (expected (4, 4), ")


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
    with pytest.raises(ModelError, match="not numbers"):
        loaded(network(nodes, {}, 13), tmp_path).gradients()


def test_names_are_names(tmp_path: Path) -> None:
    """Those that the gradient's own could be taken for, and those that are code elsewhere."""
    names = [
        "gradient_1",
        "gradient_logits",
        'x"); import os #',
        "__class__",
        "gradient__",
        "scale",
    ]
    nodes = [node("Relu", ["h" if i == 0 else names[i - 1]], "y") for i in range(len(names))]
    for each, name in zip(nodes, names, strict=True):
        each.name, each.output[0] = name, name
    nodes.append(node("Identity", [names[-1]], "y"))
    is_right(loaded(network(nodes, {}, 18), tmp_path))


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    path = save(network([node("Relu", "h", "y")], {}, 13), tmp_path / "m.onnx")
    script = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from pathlib import Path;"
        "from litmus.formats import onnx_file;"
        f"g = onnx_file.load(Path({str(path)!r})).gradients();"
        "x = np.ones((2, *g.input_spec.image_shape), np.float32);"
        "assert g.descend(x, np.zeros(2, np.int64))[1].any()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_classes_in_another_order(tmp_path: Path) -> None:
    model = loaded(classifier(spec=SPEC, gain=0.1), tmp_path)
    order = np.array([2, 0, 3, 1])
    ordered = OrderedModel(model, order).gradients()
    x, targets = images(SPEC, 4), np.arange(4)
    is_the_slope(ordered, x)
    logits, found = ordered.descend(x, targets)
    rows, expected = model.gradients().descend(x, order[targets])
    np.testing.assert_array_equal(logits, rows[:, order])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(16, 14), (5, 4), (8, 3)])
def test_images_of_another_size(tmp_path: Path, height: int, width: int) -> None:
    model = loaded(classifier(spec=SPEC, gain=0.1), tmp_path)
    spec = InputSpec(channels=3, height=height, width=width, num_classes=4)
    resized = ResizedModel(model, spec).gradients()
    assert resized.input_spec == spec
    is_the_slope(resized, images(spec, 3))
