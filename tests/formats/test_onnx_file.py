from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats.onnx_file import OnnxModel, load
from litmus.formats.preprocessing import Preprocessing
from litmus.models import InputSpec, log_probabilities
from tests.formats.onnx_models import SPEC, classifier, detector, external, finished, save, weights

IMAGES = np.random.default_rng(1).random((7, *SPEC.image_shape)).astype(np.float32)
LOGITS = IMAGES.reshape(7, -1) @ weights()


def loaded(model: onnx.ModelProto, folder: Path, **options: Any) -> OnnxModel:
    expected = options.pop("expected", None)
    stated = Preprocessing.from_table(options, "")
    return load(save(model, folder / "model.onnx"), stated, expected=expected)


def close(actual: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=1e-4)


def test_a_model_is_what_its_graph_says(tmp_path: Path) -> None:
    model = loaded(classifier(), tmp_path)
    assert model.input_spec == SPEC
    close(model(IMAGES), LOGITS)
    assert model.outputs == "logits"
    assert np.array_equal(model.weights()["w"], weights())
    assert model.notes == [
        "assumed: scale 1, mean 0, std 1, channels rgb",
        "layout nchw, from the input's shape (?, 3, 6, 5)",
        "outputs read as logits, judged by their values",
    ]


@pytest.mark.parametrize("ending", [(), ("Softmax", "Abs")])
def test_a_model_fed_otherwise_is_as_if_loaded_so(tmp_path: Path, ending: tuple[str, ...]) -> None:
    options = {"scale": 255.0, "mean": [1.0, 2.0, 3.0], "channels": "bgr"}
    expected = loaded(classifier(ending=ending), tmp_path, **options)
    model = loaded(classifier(ending=ending), tmp_path)
    for _ in range(2):  # whether or not it has been asked yet
        other = model.with_preprocessing(Preprocessing.from_table(options, ""))
        close(other(IMAGES), expected(IMAGES))
        assert (other.outputs, other.preprocessing) == (expected.outputs, expected.preprocessing)
        assert other.notes == expected.notes
        model(IMAGES)
    assert model.preprocessing == Preprocessing()
    assert model.notes[0] == "assumed: scale 1, mean 0, std 1, channels rgb"
    with pytest.raises(ModelError, match="mean does not fit"):
        model.with_preprocessing(Preprocessing(mean=(0.1, 0.2)))


def test_an_input_of_bytes_leaves_nothing_to_find_out(tmp_path: Path) -> None:
    assert loaded(classifier(dtype=TensorProto.UINT8), tmp_path).preprocessing is None


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 21])
@pytest.mark.parametrize(
    "ending",
    [
        (),
        ("Softmax:1",),
        ("Softmax:-1", "Identity"),
        ("LogSoftmax:1",),
        ("Softmax:1", "Log"),
        ("Softmax",),
        ("Identity", "Softmax", "Flatten"),
    ],
)
def test_the_score_does_not_depend_on_the_ending(
    tmp_path: Path, opset: int, ending: tuple[str, ...]
) -> None:
    if opset < 11:  # negative axes came later
        ending = tuple(item.replace("-1", "1") for item in ending)
    ulp = detector()
    expected = ulp.score(loaded(classifier(gain=20), tmp_path))
    model = loaded(classifier(gain=20, ending=ending, opset=opset), tmp_path)
    assert ulp.score(model) == pytest.approx(expected, abs=1e-3)
    assert model.outputs == "logits"
    assert any("read before it" in note for note in model.notes) == bool(ending)


def test_probabilities_are_recognised_by_their_values(tmp_path: Path) -> None:
    # Half of the softmax twice over is a softmax that the graph does not show.
    graph = classifier(ending=("Softmax", "Abs"))
    model = loaded(graph, tmp_path)
    assert model.outputs == "probabilities"
    assert "outputs read as probabilities, judged by their values" in model.notes
    close(log_probabilities(model(IMAGES), "probabilities"), log_probabilities(LOGITS), 1e-3)
    assert loaded(graph, tmp_path, outputs="logits").outputs == "logits"


def test_what_was_stated_of_the_outputs_holds(tmp_path: Path) -> None:
    model = loaded(classifier(ending=("Softmax",)), tmp_path, outputs="logits")
    assert model.outputs == "logits"
    close(model(IMAGES).sum(axis=1), np.ones(7))
    assert loaded(classifier(), tmp_path, outputs="probabilities").outputs == "probabilities"


def test_a_softmax_over_something_else_is_left_alone(tmp_path: Path) -> None:
    model = loaded(classifier(ending=("Softmax:0",)), tmp_path)
    close(model(IMAGES).sum(axis=0), np.ones(4))


def test_a_softmax_before_a_reshape(tmp_path: Path) -> None:
    def reshaped(axis: int) -> onnx.ModelProto:
        model = classifier()
        for name, sizes in (("four", [-1, 4, 1, 1]), ("two", [-1, 4])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(sizes), name))
        model.graph.node.extend(
            [
                helper.make_node("Reshape", ["logits", "four"], ["r"]),
                helper.make_node("Softmax", ["r"], ["s"], axis=axis),
                helper.make_node("Reshape", ["s", "two"], ["y"]),
            ]
        )
        model.graph.output[0].name = "y"
        return model

    close(loaded(reshaped(1), tmp_path)(IMAGES), LOGITS)
    # Over one element each, it makes ones of everything, and stays.
    close(loaded(reshaped(3), tmp_path)(IMAGES), np.ones((7, 4)))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["n", 1, 3, 7, 20])
def test_any_layout_and_batch_gives_the_same(tmp_path: Path, layout: str, batch: Any) -> None:
    model = loaded(classifier(layout=layout, batch=batch), tmp_path)
    assert model.input_spec == SPEC
    close(model(IMAGES), LOGITS)
    assert f"layout {layout}" in " ".join(model.notes)


def test_a_layout_that_the_shape_leaves_open(tmp_path: Path) -> None:
    spec = InputSpec(channels=1, height=3, width=3, num_classes=4)
    graph = classifier(spec=spec, layout="nhwc")  # (n, 3, 3, 1)
    assert loaded(graph, tmp_path, expected=spec).input_spec == spec
    assert loaded(graph, tmp_path, layout="nhwc").input_spec == spec
    other = replace(spec, channels=3, height=3, width=1)
    assert loaded(graph, tmp_path, layout="nchw").input_spec == other
    assert loaded(graph, tmp_path).input_spec == other


@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [
        (TensorProto.FLOAT16, 1.0, 0.05),
        (TensorProto.DOUBLE, 1.0, 1e-4),
        (TensorProto.UINT8, 255.0, 2.0),
    ],
)
def test_other_input_types(tmp_path: Path, dtype: int, scale: float, tolerance: float) -> None:
    model = loaded(classifier(dtype=dtype), tmp_path)
    close(model(IMAGES) / scale, LOGITS, tolerance / scale + 0.05)
    assert ("from uint8 input: scale 255" in model.notes) == (scale == 255)


def test_preprocessing_happens_before_the_model(tmp_path: Path) -> None:
    stated = {"scale": 255, "mean": [1.0, 2.0, 3.0], "std": 5, "channels": "bgr"}
    model = loaded(classifier(layout="nhwc"), tmp_path, **stated)
    fed = (IMAGES[:, ::-1] * 255 - np.reshape([1, 2, 3], (3, 1, 1))) / 5
    close(model(IMAGES), fed.reshape(7, -1) @ weights(), 1e-2)
    with pytest.raises(ModelError, match="std does not fit the model's channels"):
        loaded(classifier(), tmp_path, std=[1, 2])


def test_open_sizes_are_the_detectors(tmp_path: Path) -> None:
    graph = classifier(sizes=[3, "h", "w"], output=["n", "k"])
    model = loaded(graph, tmp_path, expected=SPEC)
    assert model.input_spec == SPEC
    assert "the graph leaves the input's size open: the detector's was taken" in model.notes
    with pytest.raises(UnsupportedModelError, match="size is open"):
        loaded(graph, tmp_path)


def test_of_several_outputs_the_one_with_the_classes_is_read(tmp_path: Path) -> None:
    model = classifier(ending=("Softmax",))
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["best"], axis=1))
    model.graph.node.append(helper.make_node("Concat", ["logits", "logits"], ["twice"], axis=1))
    for name, kind, sizes in (("best", TensorProto.INT64, [1]), ("twice", TensorProto.FLOAT, [8])):
        value = helper.make_tensor_value_info(name, kind, ["n", *sizes])
        model.graph.output.insert(0, value)
    assert loaded(model, tmp_path).input_spec.num_classes == 8
    chosen = loaded(model, tmp_path, expected=SPEC)
    close(chosen(IMAGES), LOGITS)
    assert "of 3 outputs, 'end0' was read" in chosen.notes


def test_class_names(tmp_path: Path) -> None:
    names = ["cat", "dog", "elk", "fox"]
    model = classifier()
    assert loaded(model, tmp_path).classes == ()
    assert loaded(model, tmp_path, classes=names).classes == tuple(names)
    with pytest.raises(ModelError, match=r"classes do not fit .*expected 4, got 1"):
        loaded(model, tmp_path, classes=["cat"])
    model.metadata_props.add(key="classes", value='["cat", "dog", "elk", "fox"]')
    assert loaded(model, tmp_path).classes == tuple(names)
    model.metadata_props[0].value = "[" * 10_000
    assert loaded(model, tmp_path).classes == ()


def test_images_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"images do not fit .*\(3, 6, 5\), got \(3, 5, 6\)"):
        loaded(classifier(), tmp_path)(IMAGES.transpose(0, 1, 3, 2))


def test_external_data_in_the_models_folder(tmp_path: Path) -> None:
    model = load(external(tmp_path / "m", "weights.bin", offset=64, length=weights().nbytes))
    close(model(IMAGES), LOGITS)
    assert model.external_files == ("weights.bin",)
    (tmp_path / "m" / "sub").mkdir()
    (tmp_path / "m" / "sub" / "link.bin").symlink_to(tmp_path / "m" / "weights.bin")
    size = weights().nbytes
    path = external(tmp_path / "m", "sub/link.bin", offset=64, length=size)
    close(load(path)(IMAGES), LOGITS)


@pytest.mark.parametrize(
    "location", ["../outside.bin", "link.bin", "sub/../../outside.bin", "ABSOLUTE", "sub/file", ""]
)
def test_external_data_outside_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(bytes(10_000))
    location = location.replace("ABSOLUTE", str(folder / "weights.bin"))
    path = external(folder, location, offset=64, length=weights().nbytes)
    with pytest.raises(ModelError, match="must lie in the model's own folder"):
        load(path)


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("none.bin", {}, "can't be read"),
        ("*/_ORT_MEM_ADDR_/*", {"offset": 4096}, "can't be read"),
        ("weights.bin", {"offset": 64, "length": 10**9}, "cut short"),
        ("weights.bin", {"offset": -1}, "cut short"),
        ("fifo", {}, "no plain file"),
    ],
)
def test_external_data_that_is_not_there(
    tmp_path: Path, location: str, entries: dict[str, int], message: str
) -> None:
    path = external(tmp_path / "m", location, **entries)
    os.mkfifo(tmp_path / "m" / "fifo")
    with pytest.raises(ModelError, match=message):
        load(path)


def test_external_data_counts_as_size(tmp_path: Path) -> None:
    path = external(tmp_path / "m", "weights.bin")
    size = path.stat().st_size
    with pytest.raises(ModelError, match="too large"):
        load(path, max_bytes=size + 10)
    with pytest.raises(ModelError, match="the file is too large"):
        load(path, max_bytes=size - 1)


def custom_operator() -> onnx.ModelProto:
    model = classifier()
    model.graph.node[0].domain = "com.vendor"
    return model


def hidden_operator() -> onnx.ModelProto:
    """A custom operator in the branch of an If."""
    model = classifier()
    branch = helper.make_graph(
        [helper.make_node("Evil", ["logits"], ["z"], domain="com.vendor")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    node = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)
    model.graph.output[0].name = "y"
    return model


def two_inputs() -> onnx.ModelProto:
    model = classifier()
    value = helper.make_tensor_value_info("other", TensorProto.FLOAT, [1])
    model.graph.input.append(value)
    return model


def vector_input() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])
    return finished(helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", [x], [y]))


def image_output(output: list[Any] | None) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 5])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
        return finished(helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", [x], [y]))

    return build


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (custom_operator, "custom operators .*got Flatten of com.vendor"),
        (hidden_operator, "custom operators .*got Evil of com.vendor"),
        (two_inputs, "expected one input, got 2, images, other"),
        (vector_input, r"expected an input of rank 4, got x FLOAT \(\?, 8\)"),
        (image_output(["n", 3, 6, 5]), r"expected an output of floats, .*y FLOAT \(\?, 3, 6, 5\)"),
        (image_output(None), "not a classifier"),
        (lambda: classifier(dtype=TensorProto.STRING), "input's type .*got images STRING"),
        (lambda: classifier(opset=99), "opset 99|can't run it"),
    ],
)
def test_whole_files_that_are_no_plain_classifier(
    tmp_path: Path, build: Callable[[], onnx.ModelProto], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as fault:
        loaded(build(), tmp_path)
    assert str(tmp_path / "model.onnx") in str(fault.value)


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"hello", b"\xff" * 1000, None])
def test_damaged_files(tmp_path: Path, content: bytes | None) -> None:
    whole = classifier().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelError, match=r"m\.onnx: (not an ONNX file|an ONNX file without)"):
        load(tmp_path / "m.onnx")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: No such file"):
        load(tmp_path / "none.onnx")


def test_graphs_that_do_not_hang_together(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ModelError, match="onnxruntime can't run it"):
        loaded(model, tmp_path)
    circle = classifier(ending=("Identity", "Identity"))
    circle.graph.node[-2].input[0] = "end1"
    with pytest.raises(ModelError, match="onnxruntime can't run it"):
        loaded(circle, tmp_path)


def test_a_long_name_does_not_make_a_complaint_take_long(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[1].input[0] = "/" * 10**6
    with pytest.raises(ModelError, match="can't run it") as fault:
        loaded(model, tmp_path)
    assert len(str(fault.value)) < 1000


def test_a_model_that_answers_with_another_number_of_rows(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.append(helper.make_node("Gather", ["logits", "zero"], ["y"], axis=0))
    model.graph.output[0].name = "y"
    with pytest.raises(ModelError, match=r"one row of outputs an image .*expected 7, got 1"):
        loaded(model, tmp_path)(IMAGES)


def test_an_impossible_batch(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="impossible batch size"):
        loaded(classifier(batch=10**9), tmp_path)


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    loaded(classifier(), tmp_path)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
