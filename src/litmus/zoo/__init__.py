"""Model zoos: clean and backdoored networks, trained from a recipe and kept on disk."""

from __future__ import annotations

from litmus.zoo.build import BuildEvent, build, build_zoo
from litmus.zoo.recipe import Recipe, load_recipe
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import Zoo, ZooEntry

__all__ = [
    "BuildEvent",
    "ModelSpec",
    "Recipe",
    "Zoo",
    "ZooEntry",
    "build",
    "build_zoo",
    "load_recipe",
]
