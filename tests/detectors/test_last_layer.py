from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from litmus.detectors import DETECTORS
from litmus.detectors.last_layer import LastLayerDetector, layer_statistics
from litmus.detectors.outliers import robust_scores
from litmus.errors import ModelError, UnsupportedModelError
from litmus.formats import onnx_file
from litmus.models import LastLayer
from litmus.scanning import Scored, Skipped, scan
from tests.formats.onnx_models import SPEC, classifier, finished, layer_detector, save, weights

NAMES = LastLayerDetector.statistic_names
Array = NDArray[np.float64]


def layer(k: int = 10, f: int = 40, seed: int = 0) -> LastLayer:
    random = np.random.default_rng(seed)
    return random.normal(size=(k, f)), random.normal(size=k)


def test_what_it_needs_is_said() -> None:
    assert DETECTORS["last_layer"] is LastLayerDetector
    assert LastLayerDetector.needs_weights
    assert not LastLayerDetector.needs_gradients
    assert not LastLayerDetector.needs_images


@pytest.mark.parametrize("k", [2, 3, 10, 43])
@given(seed=st.integers(0, 100))
def test_neither_order_nor_scale_nor_a_common_shift_count(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    w, _ = layer(k, seed=seed)
    expected = layer_statistics(w)
    assert expected.shape == (len(NAMES),)
    classes, features = random.permutation(k), random.permutation(w.shape[1])
    for changed in (w[classes][:, features], 1e-3 * w, w + random.normal(size=w.shape[1])):
        np.testing.assert_allclose(layer_statistics(changed), expected, atol=1e-6)


@pytest.mark.parametrize("k", [10, 43])
def test_a_planted_class_stands_out(k: int) -> None:
    w, _ = layer(k)
    before = dict(zip(NAMES, layer_statistics(w), strict=True))
    planted = w.copy()
    planted[k // 2] += 3.0
    after = dict(zip(NAMES, layer_statistics(planted), strict=True))
    assert after["mean, first"] > before["mean, first"] + 1
    assert after["positive, first"] > before["positive, first"] + 0.5
    assert after["mean, second"] < after["mean, first"] - 1


def test_a_class_with_more_images_is_no_outlier_for_its_bias() -> None:
    w, b = layer()
    raised = b.copy()
    raised[-1] += 20
    detector = layer_detector()
    assert detector.measure(Weights(w, raised)) == detector.measure(Weights(w, b))  # type: ignore[arg-type]


def test_a_layer_that_says_nothing_has_no_outlier() -> None:
    for w in (np.zeros((4, 5)), np.ones((4, 5))):
        assert not layer_statistics(w).any()


def test_robust_scores() -> None:
    scores = robust_scores(np.array([1.0, 2, 3, 4, 5, 23]))
    np.testing.assert_allclose(
        np.sinh(scores), np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 19.5]) / 2.2239
    )
    # Most are equal: the scale is that of all, and the outlier is still one.
    one_off = robust_scores(np.array([0.0] * 9 + [1.0]))
    assert one_off[0] == 0
    assert 2 < one_off[9] < 5
    assert not robust_scores(np.full(7, 0.1) * (1 + 1e-15 * np.arange(7))).any()


class Weights:
    """A model that has a last layer and nothing else."""

    input_spec = SPEC
    outputs = "logits"

    def __init__(self, w: Array, b: Array) -> None:
        self._layer = w, b

    def last_layer(self) -> LastLayer:
        return self._layer


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_weights_that_are_not_numbers_are_an_error(value: float, where: int) -> None:
    broken = layer(4)
    broken[where].flat[2] = value
    with pytest.raises(ModelError, match="not numbers"):
        layer_detector().measure(Weights(*broken))  # type: ignore[arg-type]


def test_huge_weights_are_still_numbers() -> None:
    w, b = layer(4)
    layer_detector().measure(Weights(1e200 * w, 1e300 * b))  # type: ignore[arg-type]


def test_a_model_without_a_last_layer_is_refused() -> None:
    class Nothing:
        input_spec = SPEC
        outputs = "logits"

    with pytest.raises(UnsupportedModelError, match="needs weights"):
        layer_detector().measure(Nothing())  # type: ignore[arg-type]


def test_a_scan_reads_the_weights_or_says_why_not(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    (tmp_path / "d.litmus").write_bytes(layer_detector().to_bytes())
    good = save(classifier(ending=("Softmax",)), tmp_path / "good.onnx")
    # No layer at all: the first four pixels are the logits.
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Split", ["flat"], ["y", "rest"], axis=1, split=[4, 86]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SPEC.image_shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = finished(helper.make_graph(nodes, "none", [x], [y]), opset=12)
    bad = save(graph, tmp_path / "none.onnx")
    scored, skipped = scan([good, bad], detector=tmp_path / "d.litmus")
    assert isinstance(scored, Scored)
    expected = layer_detector().score(onnx_file.load(good))
    assert scored.score == pytest.approx(expected)
    direct = layer_statistics(weights().T.astype(np.float64))
    assert expected == pytest.approx(
        np.mean([head.measure(direct)[0] for head in layer_detector().heads])
    )
    assert isinstance(skipped, Skipped)
    assert "last layer can't be read" in skipped.reason
    assert "Split" in skipped.reason
