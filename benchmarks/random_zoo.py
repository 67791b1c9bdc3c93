"""Zoo files with random weights: as many as a measurement of memory or time needs, in seconds."""

from __future__ import annotations

from pathlib import Path

import torch

from litmus.artifacts import encode_tensors
from litmus.formats.zoo_file import ZOO_FORMAT, saved_weights
from litmus.models import InputSpec
from litmus.zoo import Zoo
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import Recipe
from litmus.zoo.store import write_accepted, write_recipe_table

__all__ = ["random_zoo"]


def random_zoo(recipe: Recipe, input_spec: InputSpec, folder: Path) -> Zoo:
    """Write the recipe's models as they are before their training, and open them as a zoo."""
    write_recipe_table(folder, recipe.to_json())
    for spec in expand(recipe, input_spec):
        module = spec.build_architecture().build(input_spec, seed=spec.seed)
        header = {
            "format": ZOO_FORMAT,
            "format_version": 1,
            "id": spec.id,
            "spec": spec.to_json(),
            "trigger_id": spec.build_attack().trigger_id,
            "steps": 0,
            "clean_accuracy": 0.0,
            "attack_success": 0.0,
            "class_names": [str(label) for label in range(input_spec.num_classes)],
            "torch_version": torch.__version__,
        }
        write_accepted(folder, spec.id, encode_tensors(saved_weights(module), header), {})
    return Zoo.open(folder)
