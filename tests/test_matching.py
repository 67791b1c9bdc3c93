from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.matching import (
    FEATURE_NAMES,
    answer_features,
    assign,
    features_of,
    most_by_chance,
    order_by_name,
    robust_answers,
    two_looks,
)
from litmus.models import Images, InputSpec, Outputs


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (3, 5), (6, 6)])
def test_the_assignment_has_the_largest_sum(n: int, m: int) -> None:
    generator = np.random.default_rng(n + m)
    for _ in range(20):
        values = generator.normal(size=(n, m))
        found = assign(values)
        assert len(set(found.tolist())) == n
        best = max(
            sum(values[row, column] for row, column in enumerate(columns))
            for columns in permutations(range(m), n)
        )
        assert values[np.arange(n), found].sum() == pytest.approx(best)


def test_a_contested_favourite_goes_where_it_matters_most() -> None:
    values = np.array([[9.0, 8.0, 0.0], [9.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert assign(values).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("names", "wanted", "order"),
    [
        (["cat", "dog"], ["cat", "dog"], [0, 1]),
        (["Dog", "CAT "], ["cat", "dog"], [1, 0]),
        (["speed_limit 30", "Stop!"], ["stop", "speed limit (30)"], [1, 0]),
        (["0", "1", "10", "2"], ["a", "b", "c", "d"], None),
        (["1", "0"], ["a", "b"], [1, 0]),  # numbers are positions
        (["0", "1"], ["1", "0"], [1, 0]),  # unless they are names
        (["cat", "cat"], ["cat", "dog"], None),
        (["cat", "bird"], ["cat", "dog"], None),
        ([], ["cat", "dog"], None),
    ],
)
def test_names_that_are_the_same_say_the_order(
    names: list[str], wanted: list[str], order: list[int] | None
) -> None:
    found = order_by_name(names, wanted)
    assert (None if found is None else found.tolist()) == order


@pytest.mark.parametrize("classes", [2, 5, 10, 43])
def test_random_answers_are_rarely_more_different(classes: int) -> None:
    drawn = np.random.default_rng(0).integers(classes, size=(4000, classes))
    counts = np.array([len(set(row)) for row in drawn.tolist()])
    expected = counts.mean() + 2 * counts.std()
    assert most_by_chance(classes) == pytest.approx(expected, rel=0.01)
    assert (counts > most_by_chance(classes)).mean() < 0.05


def test_names_sorted_as_text() -> None:
    numbers = sorted(map(str, range(12)))
    found = order_by_name(numbers, [f"sign {i}" for i in range(12)])
    assert found is not None
    assert [numbers[i] for i in found] == list(map(str, range(12)))


class Told:
    """A model that answers what it is told."""

    input_spec = InputSpec(channels=1, height=2, width=2, num_classes=3)

    def __init__(self, answers: NDArray[np.float64], outputs: Outputs = "logits") -> None:
        self.answers, self.outputs = answers, outputs

    def __call__(self, images: Images) -> NDArray[np.float64]:
        return self.answers[: len(images)]


def test_answers_that_are_no_numbers_count_as_a_shrug() -> None:
    for outputs in ("logits", "probabilities"):
        model = Told(np.array([[np.nan, 0, 1], [0.0, 0.0, 1.0]]), outputs)
        answers = robust_answers(model, np.zeros((2, 1, 2, 2), dtype=np.float32))
        np.testing.assert_allclose(np.exp(answers[0]), 1 / 3, atol=1e-6)
        assert answers[1].argmax() == 2


def test_features_do_not_depend_on_the_order_of_classes() -> None:
    generator = np.random.default_rng(0)
    full, faint = (np.log(generator.dirichlet(np.ones(4), size=3)) for _ in range(2))
    order = generator.permutation(4)
    found = answer_features(full, faint)
    assert found.shape == (len(FEATURE_NAMES),)
    np.testing.assert_allclose(answer_features(full[:, order], faint[:, order]), found)


def test_the_sure_are_told_from_the_unsure() -> None:
    sure = np.log(np.eye(3) * 0.97 + 0.01)
    unsure = np.log(np.full((3, 3), 1 / 3))
    features = dict(zip(FEATURE_NAMES, answer_features(sure, unsure), strict=True))
    assert features["share on their class, full"] == 1
    assert features["share on their class, faint"] < 1
    assert features["log-odds, full"] > features["log-odds, faint"]
    assert features["entropy, full"] < features["entropy, faint"]


def test_a_model_is_asked_once_for_all_batches() -> None:
    references = np.random.default_rng(1).random((2, 1, 2, 2), dtype=np.float32)
    looks = two_looks(references, np.array([0.5], dtype=np.float32))
    assert looks.shape == (4, 1, 2, 2)
    np.testing.assert_array_equal(looks[:2], references)
    assert np.abs(looks[2:] - 0.5).max() < 0.1
    answers = np.log(np.random.default_rng(2).dirichlet(np.ones(3), size=8))
    found = features_of(Told(answers), [looks, looks])
    one = [answer_features(answers[i : i + 2], answers[i + 2 : i + 4]) for i in (0, 4)]
    np.testing.assert_allclose(found, np.concatenate(one), atol=1e-6)
