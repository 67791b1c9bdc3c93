"""What a detector's header says of the zoo it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import litmus
from litmus.artifacts import read_header
from litmus.errors import ZooError
from litmus.metrics import auc, auc_interval
from litmus.zoo import Zoo, ZooEntry

__all__ = ["describe_scope", "held_out_auc"]


def describe_scope(
    zoo: Zoo, entries: Sequence[ZooEntry], settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Return data set, classes, architectures, attacks, triggers, numbers, settings and seeds.

    With the zoo's recipe, resolved: it says how to build the zoo again.
    """
    header = read_header(entries[0].path, ZooError)
    return {
        "dataset": entries[0].spec.dataset["name"],
        "class_names": header["class_names"],
        "architectures": sorted({entry.architecture for entry in entries}),
        "attacks": sorted({entry.attack for entry in entries}),
        "triggers": sorted({entry.trigger_id for entry in entries}),
        "zoo": zoo.recipe["name"],
        "recipe": dict(zoo.recipe),
        "zoo_seed": zoo.recipe.get("seed", entries[0].spec.zoo_seed),
        "num_models": len(entries),
        "settings": dict(settings),
        "seed": seed,
        "litmus_version": litmus.__version__,
        "torch_version": header["torch_version"],
    }


def held_out_auc(
    scores: NDArray[np.float64], entries: Sequence[ZooEntry], seed: int
) -> dict[str, object]:
    """Return the AUC of out-of-fold scores with its interval, for a detector's header.

    And each attack's, against all clean models, with the number of its models.
    """
    backdoored = np.array([entry.backdoored for entry in entries])
    triggers = np.array([entry.trigger_id for entry in entries])
    interval = auc_interval(scores, backdoored, triggers, seed=seed)
    attacks = np.array([entry.attack for entry in entries])
    by_attack = {}
    for attack in sorted(set(attacks[backdoored])):
        own = backdoored & (attacks == attack)
        chosen = own | ~backdoored
        by_attack[str(attack)] = {"auc": auc(scores[chosen], own[chosen]), "n": int(own.sum())}
    return {
        "auc": auc(scores, backdoored),
        "auc_low": interval.low,
        "auc_high": interval.high,
        "interval": interval.method,
        "n_clean": int((~backdoored).sum()),
        "n_backdoored": int(backdoored.sum()),
        "n_triggers": len(set(triggers[backdoored])),
        "by_attack": by_attack,
    }
