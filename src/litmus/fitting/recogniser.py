"""What turns reference images into a recogniser: how right answers look, and what is too few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.datasets import ImageDataset
from litmus.fitting.ensemble import FOLDS
from litmus.fitting.references import ReferenceSettings, learn_references, reference_folds
from litmus.formats import zoo_file
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.usual_inputs import usual_inputs
from litmus.matching import features_of, robust_answers, two_looks
from litmus.models import Images, Model
from litmus.seeds import derive_seed
from litmus.zoo import Zoo, ZooEntry

__all__ = ["FittedReferences", "fit_references"]

_SEARCHED: Final = 10
"""So many classes' references settle a model's input: more would take time, and tell no more."""
_WANTS: Final = 3
"""Each model plays one that wants this, that and the other input, so many of them."""
_REGULARISATION: Final = 0.1
"""scikit-learn's C, for some hundred or thousand examples of standardised features."""
_STD_FLOOR: Final = 1e-3
_ITERATIONS: Final = 3000
_NEVER: Final = -30.0
_LOWEST: Final = 0.02
"""So few of the unseen models, clean and backdoored, agree less than what floors go by."""
_FLOOR, _SEARCHED_FLOOR = 0.5, 0.75
"""How far up from guessing to that floors are: a network for other classes has more on their class
by chance where the best order of its classes is searched for."""


@dataclass(frozen=True, kw_only=True)
class FittedReferences:
    """The fields of `litmus.detectors.references.References`; `choice` are those of `Choice`."""

    images: Images
    background: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    class_names: tuple[str, ...]
    searched: NDArray[np.int64]
    choice: Mapping[str, NDArray[np.float64]]
    floor: float
    searched_floor: float
    facts: Mapping[str, Any]


def fit_references(
    zoo: Zoo,
    dataset: ImageDataset,
    settings: ReferenceSettings,
    *,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> FittedReferences:
    """Learn images on the clean models of four folds, and on all how right answers look.

    The floors are from the fifth fold's models, clean and backdoored. Of the zoo's data set only
    mean, deviation, background and class names are taken.
    """
    entries = zoo.split("train")
    # The last fold has the fewest models of the largest families.
    unseen = reference_folds(entries, seed)[0] == FOLDS - 1
    agreed = [e for e, new in zip(entries, unseen, strict=True) if not (new or e.backdoored)]
    work = settings.steps + len(entries)
    images = learn_references(
        agreed,
        dataset.background,
        settings,
        seed=seed,
        memory=zoo.memory,
        on_step=lambda done, total: on_progress(done, work),
    )
    k = len(images)
    searched = np.linspace(0, k - 1, min(k, _SEARCHED)).round().astype(np.int64)
    candidates = list(usual_inputs(dataset.mean, dataset.std).values())
    looks = two_looks(images[searched], dataset.background)
    agreement, features, wanted = [], [], []
    for done, entry in enumerate(entries, start=1):
        model = zoo_file.load(entry.path)
        agreement.append(_agreement(model, images))
        for wants in _drawn(len(candidates), entry, seed):
            features.append(features_of(model, _as_if(candidates, wants, looks)))
            wanted.append(wants)
        on_progress(settings.steps + done, work)
    new = np.array(agreement)[unseen]
    guessing, lowest = 1 / k, float(np.quantile(new, _LOWEST))
    return FittedReferences(
        images=images,
        background=dataset.background,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        searched=searched,
        choice=_choice(np.stack(features), np.array(wanted), len(candidates)),
        floor=guessing + _FLOOR * (lowest - guessing),
        searched_floor=guessing + _SEARCHED_FLOOR * (lowest - guessing),
        facts={
            "settings": asdict(settings),
            "seed": seed,
            "num_models": len(agreed),
            "num_unseen": len(new),
            "agreement": float(new.mean()),
        },
    )


def _agreement(model: Model, images: Images) -> float:
    """The mean probability that a model gives each reference's class."""
    return float(np.exp(np.diagonal(robust_answers(model, images))).mean())


def _drawn(count: int, entry: ZooEntry, seed: int) -> list[int]:
    """Return the inputs that a model plays to want."""
    random = np.random.default_rng(derive_seed(seed, "wants", entry.id))
    return [int(wants) for wants in random.permutation(count)[:_WANTS]]


def _as_if(candidates: Sequence[Preprocessing], wants: int, looks: Images) -> list[Images]:
    """Return what a model that takes images in [0, 1] must get to answer as one that wants other.

    A zoo's model with that undone before its first layer is such a one, and each candidate would
    feed it so.
    """
    own = candidates[wants]
    return [looks if c is own else own.undo(c.apply(looks)) for c in candidates]


def _choice(
    features: NDArray[np.float64], wanted: NDArray[np.int64], count: int
) -> dict[str, NDArray[np.float64]]:
    """Fit the logistic regression from features (n, f) to which of `count` inputs is wanted."""
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([features, features**2], axis=1)
    mean, std = both.mean(axis=0), np.maximum(both.std(axis=0), _STD_FLOOR)
    regression = LogisticRegression(C=_REGULARISATION, max_iter=_ITERATIONS)
    regression.fit((both - mean) / std, wanted)
    # In a small zoo an input may never have been wanted.
    weight, bias = np.zeros((count, both.shape[1])), np.full(count, _NEVER)
    weight[regression.classes_] = regression.coef_
    bias[regression.classes_] = regression.intercept_
    return {"mean": mean, "std": std, "weight": weight, "bias": bias}
