from __future__ import annotations

import numpy as np
import pytest

from litmus.attacks.places import PLACES as TORCH_PLACES
from litmus.inversion.places import PLACES
from litmus.seeds import Draws, torch_generator


@pytest.mark.parametrize("name", list(TORCH_PLACES))
@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 5), (32, 48, 6), (7, 9, 7)])
def test_patches_lie_where_attacks_put_them(name: str, height: int, width: int, size: int) -> None:
    assert PLACES.keys() == TORCH_PLACES.keys()
    found = PLACES[name](500, height, width, size, Draws(3, "places"))
    expected = TORCH_PLACES[name](500, height, width, size, torch_generator(3, "places"))
    np.testing.assert_array_equal(found, expected.numpy())
