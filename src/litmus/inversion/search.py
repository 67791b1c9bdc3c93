"""Trigger search: for every pair of classes, the small change that leads one to the other best.

Candidates are (source, target, place) of one form, optimised together; those that do worst are
dropped after each rung (successive halving, Jamieson and Talwalkar 2016). What is left is judged
on images that it was not optimised on. A backdoor's pair is reached with ease, and other images
of the class follow; in a clean model few pairs are, and less of the class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from litmus.checks import check_at_least
from litmus.errors import UsageError
from litmus.inversion.adam import Adam
from litmus.inversion.forms import Form, Placed
from litmus.models import Gradients, Images

__all__ = [
    "Bank",
    "Found",
    "SearchSettings",
    "drawn_pairs",
    "make_bank",
    "pair_count",
    "search_form",
]

_CHUNK: Final = 256
"""Images in one forward and backward pass; few enough for a processor's cache."""
_BETAS: Final = (0.8, 0.95)
"""Adam's: short, as there are few steps."""
_LEAST: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How hard the search looks.

    `rungs` are (steps of every candidate that is left, images at each step); after each all but
    the best share `keep` of the candidates are dropped, and at least `finalists` stay. Best is who
    has the smallest loss, or the smallest beside the same pair's at other places. Of more
    pairs of classes than `pairs` so many are drawn, as many for each target. The step of Adam, in
    pixel values, falls from `learning_rate` to a tenth. `views` of each class's images are made
    for optimising, and as many others for judging; each is moved by up to `shift` pixels, its
    contrast changed by up to `contrast`, with noise of `noise`. Of dots, which are not optimised,
    every pair and place is tried on `dot_images` images.
    """

    rungs: tuple[tuple[int, int], ...] = ((3, 1), (4, 2), (8, 3), (16, 6))
    keep: float = 0.1
    finalists: int = 10
    pairs: int = 90
    learning_rate: float = 0.3
    views: int = 24
    shift: int = 2
    contrast: float = 0.2
    noise: float = 0.03
    dot_images: int = 2

    def __post_init__(self) -> None:
        check_at_least(self, finalists=1, pairs=1, views=1, shift=0, dot_images=1)
        if not 0 < self.keep <= 1:
            raise UsageError("keep is impossible", expected="0 < keep <= 1", got=self.keep)
        if not self.rungs or any(steps < 1 or images < 1 for steps, images in self.rungs):
            raise UsageError(
                "rungs are impossible", expected="(steps, images) >= 1", got=self.rungs
            )

    def image_passes(self, candidates: int) -> int:
        """Return how many images go forward and backward for so many candidates of a form."""
        total = 0
        for steps, images in self.rungs:
            total += candidates * steps * images
            candidates = self.kept(candidates)
        return total

    def kept(self, candidates: int) -> int:
        """Return how many of so many candidates a rung leaves."""
        return min(candidates, max(self.finalists, math.ceil(candidates * self.keep)))


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Images by the class that the model gives them: `fit` and `check` (k, v, c, h, w)."""

    fit: Images
    check: Images

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.fit)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The candidates of a form that were never dropped, and what they do to other images.

    `pairs` (f, 2) are source and target, `placed` where and what they are, `loss` (f,) and
    `success` (f,) the mean cross-entropy towards the target and the share that became it, over
    those of the source's `check` images that the model does not call the target anyway. The best
    comes first. `screened` (p, 2) are all pairs that were tried, `screen` (p, places) the mean
    loss of each at each place in the first rung, but for its first step, before any was dropped;
    of dots all pairs there are, and every colour at every place in turn.
    """

    form: Form
    screened: NDArray[np.int64]
    screen: NDArray[np.float64]
    pairs: NDArray[np.int64]
    placed: Placed
    loss: NDArray[np.float64]
    success: NDArray[np.float64]


def make_bank(
    model: Gradients,
    images: Sequence[Images],
    check: Sequence[Images],
    settings: SearchSettings,
    *,
    seed: int = 0,
) -> Bank:
    """Return `views` of each class's images (n, c, h, w), jittered, in both halves.

    Twice as many are made, and those are taken first that the model gives their class: what it
    takes for another class anyway, no trigger has to turn.
    """
    random = np.random.default_rng([seed, 1])
    halves = [
        np.stack([_views(model, label, each, settings, random) for label, each in enumerate(half)])
        for half in (images, check)
    ]
    return Bank(fit=halves[0], check=halves[1])


def _views(
    model: Gradients, label: int, images: Images, s: SearchSettings, random: np.random.Generator
) -> Images:
    count = 2 * s.views
    drawn = images[np.arange(count) % len(images)]
    _, c, h, w = drawn.shape
    wide = np.pad(drawn, ((0, 0), (0, 0), (s.shift, s.shift), (s.shift, s.shift)), mode="edge")
    moves = random.integers(0, 2 * s.shift + 1, (count, 2))
    moved = np.stack([x[:, i : i + h, j : j + w] for x, (i, j) in zip(wide, moves, strict=True)])
    contrast = 1 + s.contrast * (2 * random.random((count, 1, 1, 1)) - 1)
    level = moved.mean(axis=(2, 3), keepdims=True)
    noise = s.noise * random.standard_normal((count, c, h, w))
    views: Images = np.clip(level + contrast * (moved - level) + noise, 0, 1).astype(np.float32)
    wrong = model.logits(views).argmax(axis=1) != label
    return views[np.argsort(wrong, kind="stable")[: s.views]]


def search_form(
    model: Gradients,
    bank: Bank,
    form: Form,
    settings: SearchSettings,
    *,
    seed: int = 0,
) -> Found:
    """Return the best candidates of a form; deterministic for a seed.

    Every pair of a source and another, target class is tried at every place of the form.
    """
    if form.kind == "dot":
        return _search_dots(model, bank, form, settings)
    tried = drawn_pairs(bank.num_classes, settings, seed=seed)
    places = len(form.places)
    pairs = np.repeat(tried, places, axis=0)
    placed = form.start(len(tried), bank.fit.shape[2:], seed)
    adam = Adam(placed.values, betas=_BETAS, least=_LEAST)
    random = np.random.default_rng([seed, 2])
    total, step = sum(steps for steps, _ in settings.rungs), 0
    screen = np.zeros(0)
    for steps, images in settings.rungs:
        losses = []
        for _ in range(steps):
            step += 1
            index = random.permutation(bank.fit.shape[1])[:images]
            loss, gradient = _gradients(model, bank.fit, pairs, placed, index, random)
            losses.append(loss)
            rate = settings.learning_rate * (1 - 0.9 * (step - 1) / total)
            adam.step(placed.values, gradient, rate)
            np.clip(placed.values, 0, 1, out=placed.values)
        if not len(screen):
            screen = np.mean(losses[1:] or losses, axis=0).reshape(len(tried), places)
            beside = _beside_other_places(screen).ravel()
        left = _best(losses[-1], beside, settings.kept(len(pairs)))
        pairs, placed, beside = pairs[left], placed[left], beside[left]
        adam.keep(left)
    return _found(model, bank, tried, screen, pairs, placed.moved(np.random.default_rng([seed, 3])))


def _search_dots(model: Gradients, bank: Bank, form: Form, settings: SearchSettings) -> Found:
    """Try dots at every place, in every colour; one pass forward tells of all targets."""
    k = bank.num_classes
    tried = np.argwhere(~np.eye(k, dtype=bool))
    one = form.start(1, bank.fit.shape[2:], 0)
    losses = np.zeros((k, len(one.place), k))
    for source, images in enumerate(bank.fit[:, : settings.dot_images]):
        for start in range(0, len(one.place), _CHUNK):
            part = slice(start, start + _CHUNK)
            for image in images:
                stamped = one[part].stamp(np.repeat(image[None, None], len(one[part].place), 0))
                losses[source, part] += _all_losses(model.logits(stamped[:, 0])) / len(images)
    screen = losses.transpose(0, 2, 1)[tuple(tried.T)]
    best = _best(screen.ravel(), _beside_other_places(screen).ravel(), settings.finalists)
    pair, place = np.divmod(best, screen.shape[1])
    return _found(model, bank, tried, screen, tried[pair], one[place])


def _found(
    model: Gradients,
    bank: Bank,
    tried: NDArray[np.int64],
    screen: NDArray[np.float64],
    pairs: NDArray[np.int64],
    placed: Placed,
) -> Found:
    """Judge the candidates that are left, and put the best first."""
    loss, success = _judged(model, bank, pairs, placed)
    order = np.lexsort((loss, -success))
    return Found(
        form=placed.form,
        screened=tried,
        screen=screen,
        pairs=pairs[order],
        placed=placed[order],
        loss=loss[order],
        success=success[order],
    )


def _beside_other_places(screen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each log loss (p, places) less the pair's typical one."""
    logs = np.log(screen + _LEAST)
    return logs - np.median(logs, axis=1, keepdims=True)


def _best(loss: NDArray[np.float64], beside: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the positions, rising, of those that are best in either way, in turn."""
    ranks = [np.argsort(np.argsort(each, kind="stable")) for each in (loss, beside)]
    return np.sort(np.lexsort((ranks[0], np.minimum(*ranks)))[:count])


def drawn_pairs(k: int, settings: SearchSettings, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the pairs (p, 2) of source and target that are tried, every target as often."""
    count = pair_count(k, settings)
    random = np.random.default_rng([seed, 5])
    each = math.ceil(count / k)
    sources = [random.choice(np.delete(np.arange(k), t), each, replace=False) for t in range(k)]
    chosen = [(int(sources[t][i]), t) for i in range(each) for t in range(k)]
    return np.array(sorted(chosen[:count]))


def pair_count(k: int, settings: SearchSettings) -> int:
    """Return how many pairs are tried."""
    return min(k * (k - 1), max(settings.pairs, k))


def _gradients(
    model: Gradients,
    images: Images,
    pairs: NDArray[np.int64],
    placed: Placed,
    index: NDArray[np.int64],
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return each candidate's mean loss (p,), and its gradient to the candidate's values."""
    losses, gradients = np.empty(len(pairs)), np.empty_like(placed.values)
    placed = placed.moved(random)
    group = max(1, _CHUNK // len(index))
    for start in range(0, len(pairs), group):
        part = slice(start, start + group)
        own = placed[part]
        stamped = own.stamp(images[pairs[part, 0]][:, index])
        targets = np.repeat(pairs[part, 1], len(index))
        logits, back = model.descend(stamped.reshape(-1, *stamped.shape[2:]), targets)
        losses[part] = cross_entropy(logits, targets).reshape(-1, len(index)).mean(axis=1)
        gradients[part] = own.collect(back.reshape(stamped.shape), stamped)
    return losses, gradients


def _judged(
    model: Gradients, bank: Bank, pairs: NDArray[np.int64], placed: Placed
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each candidate's loss (f,) and success (f,) on the check images; see `Found`."""
    losses, shares = [], []
    before = [model.logits(images).argmax(axis=1) for images in bank.check]
    for i, (source, target) in enumerate(pairs):
        images = bank.check[source][before[source] != target]
        if not len(images):
            # All are the target's already: there is nothing that a trigger could show.
            images = bank.check[source]
        stamped = placed[i : i + 1].stamp(images[None])[0]
        logits = model.logits(stamped)
        losses.append(cross_entropy(logits, np.full(len(logits), target)).mean())
        turned = (logits.argmax(axis=1) == target) & (before[source] != target).any()
        shares.append(turned.mean())
    return np.array(losses), np.array(shares)


def cross_entropy(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``-log softmax(logits)[target]`` (n,), in float64."""
    losses: NDArray[np.float64] = _all_losses(logits)[np.arange(len(logits)), targets]
    return losses


def _all_losses(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cross-entropy (n, k) to each class, in float64."""
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    losses: NDArray[np.float64] = np.log(np.exp(values).sum(axis=1, keepdims=True)) - values
    return losses
