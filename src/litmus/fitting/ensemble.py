"""Five folds: members that each leave one out, and what each says of the fold it never saw."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from litmus import features
from litmus.errors import UsageError, ZooError
from litmus.fitting.learn import EpochReport, Learned, learn
from litmus.fitting.population import Population, canonical
from litmus.fitting.ranks import Ranks
from litmus.fitting.settings import PatternSettings
from litmus.seeds import derive_seed
from litmus.zoo import ZooEntry

__all__ = [
    "FOLDS",
    "FittedMember",
    "MemberReport",
    "assign_folds",
    "check_members",
    "draw_models",
    "fit_members",
    "seen_models",
]

FOLDS: Final = 5
_VALIDATION: Final = 8
"""One in so many of a member's twins chooses the epoch; the others train."""


@dataclass(frozen=True, kw_only=True)
class MemberReport:
    """An epoch of one member's fit."""

    member: int
    members: int
    epoch: EpochReport


@dataclass(frozen=True, kw_only=True)
class FittedMember:
    """A member, the positions of the models it never saw, and its raw answers to them.

    `answers` is float64 (len(held_out), m, k).
    """

    learned: Learned
    held_out: NDArray[np.int64]
    answers: NDArray[np.float64]
    num_training: int


def fit_members(
    entries: Sequence[ZooEntry],
    settings: PatternSettings,
    *,
    members: int = FOLDS,
    folds: str = "twin",
    seed: int = 0,
    share: float = 1.0,
    population: Population | None = None,
    initial: NDArray[np.float32] | None = None,
    background: NDArray[np.float32] | None = None,
    on_progress: Callable[[MemberReport], None] = lambda report: None,
) -> list[FittedMember]:
    """Fit `members` (1 to 5) of the five-fold ensemble on a zoo's training models.

    Folds are of twins, so that a backdoored model and its control are always on the same side, or
    of families of architectures (see `assign_folds`).
    Each member trains on seven eighths of the four folds it sees and chooses its epoch by the
    rest; of both it sees only the first `share` of the twins (see `seen_models`). `population` are
    the entries' models where they have been read already. All members' patterns begin as `initial`
    (m, c, h, w), or each as its own noise, on the `background` (c,) where the settings say so.
    Members run side by side, one thread each: the result does not depend on the number of cores.
    Raises ZooError where there are too few models.
    """
    check_members(members)
    assigned, validates = assign_folds(entries, seed, by=folds)
    models = Population.load(entries) if population is None else population
    stop = threading.Event()

    def fit(member: int) -> FittedMember:
        def report(epoch: EpochReport) -> None:
            if stop.is_set():
                raise InterruptedError
            on_progress(MemberReport(member=member, members=members, epoch=epoch))

        seen = seen_models(entries, assigned != member, validates, seed, share)
        training = models.subset(np.flatnonzero(seen & ~validates))
        learned = learn(
            training,
            models.subset(np.flatnonzero(seen & validates)),
            entries[0].spec.input_spec,
            settings,
            seed=derive_seed(seed, "member", member),
            initial=initial,
            background=background,
            on_epoch=report,
        )
        held_out = np.flatnonzero(assigned == member)
        return FittedMember(
            learned=learned,
            held_out=held_out,
            answers=_answers(models, held_out, learned, settings),
            num_training=len(training),
        )

    before = torch.get_num_threads()
    # Several processes have to ask each other in the same order: one member after the other.
    side_by_side = os.cpu_count() or 1 if Ranks.current().size == 1 else 1
    with ThreadPoolExecutor(
        min(members, side_by_side), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            return list(pool.map(fit, range(members)))
        except BaseException:
            stop.set()
            raise
        finally:
            torch.set_num_threads(before)


def check_members(members: int) -> None:
    """Raise UsageError unless there can be so many members."""
    if not 1 <= members <= FOLDS:
        raise UsageError("--members is impossible", expected=f"1 to {FOLDS}", got=members)


def assign_folds(
    entries: Sequence[ZooEntry], seed: int, *, by: str = "twin"
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each model's fold, and whether it helps to choose the epoch where it is seen.

    Member i never sees fold i, whatever the detector. By `twin`, folds are alike; by
    `architecture`, each has families of networks that no other has. All kin (see `ZooEntry`) are in
    one fold. Raises UsageError for another
    `by`, ZooError where there are too few twins or families.
    """
    twins = sorted(
        {entry.kin for entry in entries}, key=lambda twin: derive_seed(seed, "fold", twin)
    )
    if len(twins) < 2 * FOLDS:
        raise ZooError(
            "too few models to fit a detector",
            expected=f"at least {2 * FOLDS} twins in the training split",
            got=len(twins),
        )
    rank = {twin: position for position, twin in enumerate(twins)}
    positions = np.array([rank[entry.kin] for entry in entries])
    # Two twins at least of every fold choose the epoch.
    every = min(_VALIDATION, max(2, len(twins) // (2 * FOLDS)))
    validates = positions // FOLDS % every == 0
    if by == "twin":
        return positions % FOLDS, validates
    if by == "architecture":
        return _family_folds(entries, seed), validates
    raise UsageError("folds of what?", expected="twin or architecture", got=by)


def seen_models(
    entries: Sequence[ZooEntry],
    permitted: NDArray[np.bool_],
    validates: NDArray[np.bool_],
    seed: int,
    share: float,
) -> NDArray[np.bool_]:
    """Return which of the permitted models a member sees: all, or a `share` of their twins.

    The share is taken of those that train and of those that choose the epoch, in an order that is
    the same for every share: what a smaller one holds, a larger one does, too. There are always
    both kinds of models among each.
    """
    if share == 1:
        return permitted
    seen = np.zeros(len(entries), dtype=bool)
    for part in (permitted & validates, permitted & ~validates):
        seen |= _first_twins(entries, part, seed, share)
    return seen


def _first_twins(
    entries: Sequence[ZooEntry], part: NDArray[np.bool_], seed: int, share: float
) -> NDArray[np.bool_]:
    own = np.array([entry.kin for entry in entries])
    backdoored = np.array([entry.backdoored for entry in entries])
    twins = sorted(set(own[part].tolist()), key=lambda twin: derive_seed(seed, "share", twin))
    for count in range(math.ceil(share * len(twins)), len(twins)):
        chosen = part & np.isin(own, twins[:count])
        if len(set(backdoored[chosen])) == 2:
            return chosen
    return part


def draw_models(
    entries: Sequence[ZooEntry], folds: NDArray[np.int64], models: int, seed: int
) -> NDArray[np.int64]:
    """Return the positions of `models` clean and as many backdoored models, rising; 0 means all.

    They come from all folds alike, and are among those that a larger number draws. Where there
    are fewer of a kind, all of it is taken.
    """
    if models == 0:
        return np.arange(len(entries))
    drawn: list[int] = []
    for kind in (False, True):
        order = sorted(
            (place for place, entry in enumerate(entries) if entry.backdoored is kind),
            key=lambda place: derive_seed(seed, "draw", entries[place].spec.twin),
        )
        # The first of each fold, then the second of each, and so on.
        met: Counter[int] = Counter()
        ranks = {}
        for place in order:
            ranks[place] = (met[folds[place]], folds[place])
            met[folds[place]] += 1
        drawn += sorted(order, key=ranks.__getitem__)[:models]
    return np.array(sorted(drawn))


def _family_folds(entries: Sequence[ZooEntry], seed: int) -> NDArray[np.int64]:
    """The largest families first, each to the fold that has the fewest models yet."""
    sizes = Counter(entry.architecture for entry in entries)
    if len(sizes) < FOLDS:
        raise ZooError(
            "too few families of architectures",
            expected=f"at least {FOLDS}, one a fold",
            got=", ".join(sorted(sizes)),
        )
    fold_of: dict[str, int] = {}
    filled = [0] * FOLDS
    for family in sorted(sizes, key=lambda f: (-sizes[f], derive_seed(seed, "fold", f))):
        fold_of[family] = filled.index(min(filled))
        filled[fold_of[family]] += sizes[family]
    return np.array([fold_of[entry.architecture] for entry in entries])


def _answers(
    population: Population, index: NDArray[np.int64], learned: Learned, settings: PatternSettings
) -> NDArray[np.float64]:
    read = canonical if settings.features == "log_probs" else torch.Tensor.double
    with torch.no_grad():
        patterns = torch.from_numpy(learned.patterns)
        answers: NDArray[np.float64] = population.answers(patterns, index.tolist(), read).numpy()
    return features.scaled_per_model(answers) if settings.scale_per_model else answers
