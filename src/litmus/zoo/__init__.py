"""Model zoos: clean and backdoored networks, trained from a recipe and kept on disk.

The names below are imported when they are first used: reading a zoo's headers takes no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from litmus.zoo.building import BuildEvent, build, build_zoo
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

_HOMES: Final = {
    "BuildEvent": "litmus.zoo.building",
    "ModelSpec": "litmus.zoo.spec",
    "Recipe": "litmus.zoo.recipe",
    "Zoo": "litmus.zoo.store",
    "ZooEntry": "litmus.zoo.store",
    "build": "litmus.zoo.building",
    "build_zoo": "litmus.zoo.building",
    "load_recipe": "litmus.zoo.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'litmus.zoo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
