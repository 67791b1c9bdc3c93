from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litmus.errors import ModelError
from litmus.models import LOG_FLOOR, InputSpec, log_probabilities, looks_like_probabilities

SPEC = InputSpec(channels=3, height=32, width=28, num_classes=10)


def test_input_spec_crosses_json() -> None:
    assert InputSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC
    assert SPEC.image_shape == (3, 32, 28)
    assert str(SPEC) == "3x32x28 -> 10 classes"


@pytest.mark.parametrize("confidence", [0.1, 1.0, 10.0, 100.0, 1000.0])
@given(seed=st.integers(0, 1000))
def test_a_network_says_the_same_however_it_was_exported(confidence: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = confidence * torch.randn(20, 10, generator=generator)
    expected = log_probabilities(logits.numpy())
    log_softmax = log_probabilities(logits.log_softmax(1).numpy())
    softmax = log_probabilities(logits.softmax(1).numpy(), "probabilities")
    np.testing.assert_allclose(log_softmax, expected, atol=1e-3)
    np.testing.assert_allclose(softmax, expected, atol=1e-3)


def test_the_floor_holds_where_softmax_underflows() -> None:
    logits = np.array([[0.0, -29.0, -200.0, -1e30]], dtype=np.float32)
    assert torch.from_numpy(logits).softmax(1)[0, 3] == 0
    floored = log_probabilities(logits)[0]
    assert floored.dtype == np.float64
    np.testing.assert_allclose(floored, [0, np.logaddexp(-29, -30), -30, -30], atol=1e-9)
    assert log_probabilities(np.array([1.0, 0.0]), "probabilities")[1] == pytest.approx(LOG_FLOOR)


def test_it_is_a_distribution_and_shifts_do_not_count() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 5, 7))
    log_probs = log_probabilities(logits)
    assert log_probs.shape == logits.shape
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1)
    np.testing.assert_allclose(log_probabilities(logits + 1000), log_probs, atol=1e-9)


@pytest.mark.parametrize("scale", [1e30, 1e300, 1.7e308])
def test_huge_logits_are_still_numbers(scale: float) -> None:
    log_probs = log_probabilities(scale * np.array([[1.0, -1.0, 0.0]]))
    np.testing.assert_allclose(log_probs, [[0, LOG_FLOOR, LOG_FLOOR]], atol=1e-9)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_numbers_are_an_error(kind: str, value: float) -> None:
    with pytest.raises(ModelError, match="not numbers"):
        log_probabilities(np.array([[0.5, value]]), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.8004]], True),
        ([[0.2, 0.9]], False),
        ([[-0.2, 1.2]], False),
        ([[0.2, 0.8], [3.0, -2.0]], False),
        ([[0.0, 0.0]], False),
        ([[np.nan, 1.0]], False),
        ([[np.inf, 1.0]], False),
        ([[np.inf, -np.inf]], False),
    ],
)
def test_probabilities_are_recognised_by_value(outputs: list[list[float]], expected: bool) -> None:
    assert looks_like_probabilities(np.array(outputs)) is expected
