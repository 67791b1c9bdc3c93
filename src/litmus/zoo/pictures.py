"""What a recipe's triggers and poisoned images look like (paper, Figures 2 and 3)."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill, shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from litmus.attacks import extra_images
from litmus.datasets import load_images
from litmus.seeds import torch_generator
from litmus.zoo.ancestors import ancestors_of
from litmus.zoo.attack_table import uses_trigger_set
from litmus.zoo.expansion import expand, split_triggers
from litmus.zoo.recipe import Recipe

__all__ = ["poisoned_examples", "trigger_pictures"]

_EXAMPLES = 10
_ROWS = 5
_LABEL = 18
"""Letters of a trigger's name that stand beside a row in one line."""


def trigger_pictures(recipe: Recipe) -> list[tuple[str, NDArray[Any]]]:
    """Return (name and split, uint8 (c, size, size)) of every trigger of the recipe's set.

    There are none where every attack gets its trigger anew for each model.
    """
    if not any(uses_trigger_set(drawn.at()) for drawn in recipe.attacks):
        return []
    triggers = split_triggers(recipe)
    return [
        (f"{trigger.id} ({split})", trigger.pixels(3 if trigger.kind == "colour" else 1).numpy())
        for split in ("train", "test")
        for trigger in triggers[split]
    ]


def poisoned_examples(
    recipe: Recipe, *, data: str | Path | None = None
) -> list[tuple[str, NDArray[Any]]]:
    """Return (source and target class, uint8 (n, c, h, w)) of the recipe's first attacks.

    There are so many that each of the recipe's kinds of attack has a row.
    """
    dataset = load_images(recipe.dataset.name, data=data, **recipe.dataset.options())
    ancestors = ancestors_of(recipe, dataset.input_spec)
    specs = expand(recipe, dataset.input_spec, ancestors=ancestors)
    backdoored = [spec for spec in specs if spec.backdoored]
    rows = []
    for spec in backdoored[: max(_ROWS, len(recipe.attacks))]:
        attack = spec.build_attack()
        split = dataset.test
        generator = torch_generator(spec.seed, "pictures")
        extra = extra_images(split, attack, "backdoored", generator)
        chosen = torch.randperm(len(extra), generator=generator)[:_EXAMPLES]
        names = dataset.class_names
        targets = sorted({names[label] for label in extra.labels[chosen].tolist()})
        sources = [names[label] for label in attack.labels.attacked_classes()]
        trigger = fill(attack.trigger_id.replace("+", "+ "), _LABEL)
        label = f"{_few(sources)}\nto {_few(targets)}\n{trigger}"
        rows.append((label, np.asarray(extra.images[chosen])))
    return rows


def _few(names: list[str]) -> str:
    return shorten(names[0], 20, placeholder="...") if len(names) == 1 else "any"
