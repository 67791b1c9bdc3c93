"""Each operator's gradient against differences of the function itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.formats import onnx_file
from litmus.formats.gradients import RULES
from litmus.models import Gradients, Images, InputSpec
from tests.formats.gradients.cases import CASES, network
from tests.formats.gradients.quantised import QUANTISED
from tests.formats.onnx_models import save


def images(spec: InputSpec, count: int, seed: int = 5) -> Images:
    """Images of bytes."""
    found = np.random.default_rng(seed).random((count, *spec.image_shape))
    return (np.rint(found * 255) / 255).astype(np.float32)


def loss(logits: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cross-entropy of each image."""
    values = logits.astype(np.float64)
    top = values.max(axis=1)
    total = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
    found: NDArray[np.float64] = total - values[np.arange(len(values)), targets]
    return found


def is_the_slope(model: Gradients, x: Images, step: float = 3e-3, tolerance: float = 0.03) -> None:
    """Along the gradient, and along noise, the loss changes as the gradient says."""
    targets = np.arange(len(x)) % model.input_spec.num_classes
    _, gradient = model.descend(x, targets)
    assert gradient.shape == x.shape
    assert gradient.dtype == np.float32
    norms = np.sqrt((gradient.astype(np.float64) ** 2).sum(axis=(1, 2, 3), keepdims=True))
    noise = np.random.default_rng(1).normal(size=x.shape)
    noise /= np.sqrt((noise**2).sum(axis=(1, 2, 3), keepdims=True))
    assert norms.any()
    for way in (gradient / np.maximum(norms, 1e-30), noise):
        there, back = (
            loss(model.logits((x + sign * step * way).astype(np.float32)), targets)
            for sign in (1, -1)
        )
        slope = (way * gradient.astype(np.float64)).sum(axis=(1, 2, 3))
        limit = tolerance * float(norms.max()) + 1e-4
        np.testing.assert_allclose((there - back) / (2 * step), slope, atol=limit)


def cases() -> list[Any]:
    return [
        pytest.param(name, opset, id=f"{name}-{opset}")
        for name, (opsets, _, _) in CASES.items()
        for opset in opsets
    ]


@pytest.mark.parametrize(("name", "opset"), cases())
def test_operators_have_the_gradient_of_differences(name: str, opset: int, tmp_path: Path) -> None:
    _, nodes, arrays = CASES[name]
    model = onnx_file.load(save(network(nodes, arrays, opset), tmp_path / "m.onnx"))
    gradients = model.gradients()
    x = images(model.input_spec, 3)
    np.testing.assert_allclose(gradients.logits(x), model(x), atol=1e-3, rtol=1e-3)
    is_the_slope(gradients, x)
    targets = np.arange(3) % model.input_spec.num_classes
    _, alone = gradients.descend(x[1:2], targets[1:2])
    _, together = gradients.descend(x, targets)
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4 * np.abs(alone).max() + 1e-7)


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_operators_pass_gradients_straight_through(name: str, tmp_path: Path) -> None:
    """What is rounded has no slope of its own: it is that over a longer way."""
    opsets, nodes, arrays = QUANTISED[name]
    model = onnx_file.load(save(network(nodes, arrays, opsets[-1]), tmp_path / "m.onnx"))
    is_the_slope(model.gradients(), images(model.input_spec, 3), step=0.3, tolerance=0.15)


def test_every_operator_has_a_case() -> None:
    seen = {node.op_type for _, nodes, _ in CASES.values() for node in nodes}
    seen |= {node.op_type for _, nodes, _ in QUANTISED.values() for node in nodes}
    assert sorted(set(RULES) - seen - {"Conv"}) == []
