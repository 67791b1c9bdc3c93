from __future__ import annotations

import numpy as np
import pytest

from litmus.formats.preprocessing import Preprocessing
from litmus.formats.usual_inputs import DEFAULT_INPUT, agrees, usual_inputs

MEAN, STD = np.array([0.34, 0.31, 0.32], np.float32), np.array([0.28, 0.27, 0.26], np.float32)
IMAGES = np.random.default_rng(0).random((4, 3, 5, 6), dtype=np.float32)


def test_the_default_is_the_first_and_grey_images_have_fewer() -> None:
    colour, grey = usual_inputs(MEAN, STD), usual_inputs(MEAN[:1], STD[:1])
    for candidates in (colour, grey):
        name, first = next(iter(candidates.items()))
        assert name == DEFAULT_INPUT
        np.testing.assert_array_equal(first.apply(IMAGES[:, :1]), IMAGES[:, :1])
    assert list(grey) == [name for name in colour if "BGR" not in name and "ImageNet" not in name]
    assert len(colour) == 10


@pytest.mark.parametrize("name", usual_inputs(MEAN, STD))
def test_what_a_candidate_does_can_be_undone(name: str) -> None:
    candidate = usual_inputs(MEAN, STD)[name]
    fed = candidate.apply(IMAGES)
    np.testing.assert_allclose(candidate.undo(fed), IMAGES, atol=1e-6)


def test_what_they_do() -> None:
    candidates = usual_inputs(MEAN, STD)
    assert candidates["0 to 255"].apply(np.ones_like(IMAGES)).max() == 255
    signed = candidates["-1 to 1"].apply(np.stack([np.zeros((3, 2, 2)), np.ones((3, 2, 2))]))
    assert (signed[0].min(), signed[1].max()) == (-1, 1)
    own = candidates["standardised as the data set"].apply(IMAGES)
    np.testing.assert_allclose(own[:, 1], (IMAGES[:, 1] - 0.31) / 0.27, rtol=1e-5)
    turned = candidates["standardised as the data set, BGR"].apply(IMAGES)
    np.testing.assert_allclose(turned, own[:, ::-1], rtol=1e-5)


def stated(**values: object) -> Preprocessing:
    """What somebody states in flags."""
    return Preprocessing(**values, origin=dict.fromkeys(values, "flags"))  # type: ignore[arg-type]


def test_only_what_is_stated_rules_candidates_out() -> None:
    candidates = usual_inputs(MEAN, STD)

    def left(what: Preprocessing) -> list[str]:
        return [name for name, candidate in candidates.items() if agrees(candidate, what)]

    assert left(Preprocessing()) == list(candidates)
    assert left(stated(scale=255.0)) == ["0 to 255", "0 to 255, BGR"]
    assert left(stated(mean=(0.485, 0.456, 0.406), channels="rgb")) == ["standardised as ImageNet"]
    # To two digits is what people write.
    assert "standardised as the data set" in left(stated(mean=(0.34, 0.31, 0.32)))
    assert left(stated(mean=0.9)) == []
