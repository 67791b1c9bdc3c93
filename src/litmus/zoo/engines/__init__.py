"""Engines: where a zoo's models are made. A new one is one file and one line in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from litmus.zoo.engines.base import Engine, Job, Workers
from litmus.zoo.engines.local import LocalEngine
from litmus.zoo.engines.ray import RayEngine

__all__ = ["ENGINES", "Engine", "Job", "LocalEngine", "RayEngine", "Workers"]

ENGINES: Final[dict[str, Callable[..., Engine]]] = {
    "local": LocalEngine,
    "ray": RayEngine,
}
