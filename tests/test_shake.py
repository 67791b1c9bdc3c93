from __future__ import annotations

import numpy as np
import pytest

from litmus.shake import drawn_bytes, drawn_numbers


def test_draws_never_change() -> None:
    assert drawn_bytes("litmus", 4).tolist() == [130, 149, 254, 239]
    assert drawn_numbers("litmus", 2).tolist() == [0.8169667885958865, 0.21690300368265525]


def test_a_name_is_a_stream_of_its_own_and_longer_draws_begin_alike() -> None:
    assert (drawn_bytes("a", 1000)[:10] == drawn_bytes("a", 10)).all()
    assert (drawn_bytes("a", 10) != drawn_bytes("b", 10)).any()
    drawn_bytes("a", 10)[:] = 0
    assert drawn_bytes("a", 10).any()


def test_numbers_are_uniform() -> None:
    numbers = drawn_numbers("uniform", 10_000)
    assert numbers.dtype == np.float64
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    assert np.histogram(numbers, bins=10, range=(0, 1))[0].min() > 900
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)
