"""What a model answers to reference images: which class belongs to which, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.models import Images, LogProbs, Model, log_probabilities

__all__ = [
    "FEATURE_NAMES",
    "answer_features",
    "assign",
    "features_of",
    "most_by_chance",
    "order_by_name",
    "robust_answers",
    "two_looks",
]

_FAINT: Final = 0.12
"""The contrast of the second look at each reference: from where on a network recognises something
tells how large its inputs are meant to be, while a ReLU network's confidence grows with any."""
_NATS: Final = 5.0
"""Log-odds and their deviation are counted in these, so that features are of order 1."""
_MOST: Final = 1 - 1e-12
"""A probability that float64 still tells from 1."""

FEATURE_NAMES: Final = tuple(
    f"{what}, {contrast}"
    for contrast in ("full", "faint")
    for what in ("log-odds", "deviation of log-odds", "share on their class", "entropy")
)
"""What `answer_features` returns."""


def assign(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return a column for each row (n,), each column once at most, with the largest sum of values.

    `values` is (n, m) with n <= m. Kuhn (1955) and Munkres (1957) by shortest augmenting paths;
    rows whose largest value nobody contests have it from the start.
    """
    cost = -np.asarray(values, dtype=np.float64)
    favourites: list[int] = cost.argmin(axis=1).tolist()
    owner = [-1] * cost.shape[1]
    for row, column in enumerate(favourites):
        if owner[column] < 0:
            owner[column] = row
    contested = sorted(set(range(len(cost))) - set(owner))
    if contested:
        # Lists: a path is some ten steps over some ten classes, which arrays are slower at.
        rows, row_price, column_price = cost.tolist(), cost.min(axis=1).tolist(), [0.0] * len(owner)
        for row in contested:
            _augment(row, rows, owner, row_price, column_price)
    columns = np.empty(len(cost), dtype=np.int64)
    for column, row in enumerate(owner):
        if row >= 0:
            columns[row] = column
    return columns


def _augment(
    start: int,
    cost: list[list[float]],
    owner: list[int],
    row_price: list[float],
    column_price: list[float],
) -> None:
    """Give one more row a column along the cheapest path (Dijkstra), and keep the prices fair."""
    least, before = [float("inf")] * len(owner), [-1] * len(owner)
    reached: list[int] = []
    open_columns = list(range(len(owner)))
    row, length, last = start, 0.0, -1
    while True:
        costs, base = cost[row], length - row_price[row]
        for column in open_columns:
            through = base + costs[column] - column_price[column]
            if through < least[column]:
                least[column], before[column] = through, last
        last = min(open_columns, key=least.__getitem__)
        length = least[last]
        open_columns.remove(last)
        if owner[last] < 0:
            break
        reached.append(last)
        row = owner[last]
    row_price[start] += length
    for column in reached:
        row_price[owner[column]] += length - least[column]
        column_price[column] -= length - least[column]
    while last >= 0:
        previous = before[last]
        owner[last] = start if previous < 0 else owner[previous]
        last = previous


def most_by_chance(classes: int) -> float:
    """Return how many references are on their class where a network answers them at random.

    There are as many references as classes. The best order puts as many on their class as there
    are different answers: the occupancy problem (Feller 1968, chapter II). Two standard deviations
    above the mean.
    """
    one, two = (1 - 1 / classes) ** classes, (1 - 2 / classes) ** classes
    variance = classes * (classes - 1) * two + classes * one - (classes * one) ** 2
    return float(classes * (1 - one) + 2 * np.sqrt(variance))


def _log_odds(log_probs: LogProbs) -> NDArray[np.float64]:
    """Return log p - log(1 - p) of log-probabilities; finite for floored ones."""
    odds: NDArray[np.float64] = log_probs - np.log1p(-np.minimum(np.exp(log_probs), _MOST))
    return odds


def answer_features(full: LogProbs, faint: LogProbs) -> NDArray[np.float64]:
    """Return the numbers of `FEATURE_NAMES` for the answers (s, k) to s references, each twice.

    `full` are the answers to the references themselves, which settle the class of each, `faint`
    those to the same with little contrast. No class order is assumed, and s <= k.
    """
    columns = assign(full)[:, None]
    found = []
    for answers in (full, faint):
        odds = _log_odds(np.take_along_axis(answers, columns, axis=1)[:, 0])
        on_class = answers.argmax(axis=1) == columns[:, 0]
        entropy = -(np.exp(answers) * answers).sum(axis=1)
        found += [odds.mean() / _NATS, odds.std() / _NATS, on_class.mean(), entropy.mean()]
    return np.array(found)


def order_by_name(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64] | None:
    """Return where each `wanted` name stands in `names`, or None where they are not the same ones.

    Upper case, spaces and punctuation do not matter. Names that are just the numbers from 0 are
    the wanted classes' positions.
    """
    plain, target = [_plain(name) for name in names], [_plain(name) for name in wanted]
    numbers = [str(i) for i in range(len(wanted))]
    if sorted(plain) != sorted(target) and sorted(plain) == sorted(numbers):
        target = numbers
    if sorted(plain) != sorted(target) or len(set(plain)) < len(plain):
        return None
    return np.array([plain.index(name) for name in target])


def _plain(name: str) -> str:
    letters = "".join(c for c in name.casefold() if c.isalnum())
    return letters or name.strip()


def robust_answers(model: Model, images: Images) -> LogProbs:
    """Return a model's log-probabilities (n, k); a row that is no number counts as a shrug.

    A network in float16 that is fed bytes may well overflow, and is only fed wrongly.
    """
    outputs = np.asarray(model(images), dtype=np.float64)
    broken = ~np.isfinite(outputs).all(axis=1, keepdims=True)
    return log_probabilities(np.where(broken, 1 / outputs.shape[1], outputs), model.outputs)


def two_looks(references: Images, background: NDArray[np.float32]) -> Images:
    """Return references (s, c, h, w), then the same with little contrast to the background (c,)."""
    level = background.reshape(-1, 1, 1)
    faint: Images = level + np.float32(_FAINT) * (references - level)
    return np.concatenate([references, faint])


def features_of(model: Model, batches: Sequence[Images]) -> NDArray[np.float64]:
    """Return `answer_features` for each batch of `two_looks`, one behind the other.

    The model is asked once, for all batches.
    """
    answers = robust_answers(model, np.concatenate(batches))
    looks = answers.reshape(len(batches), 2, -1, answers.shape[1])
    return np.concatenate([answer_features(full, faint) for full, faint in looks])
