"""Imports point down only, whether at the top of a module, in a function or for types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import litmus

SOURCE = Path(litmus.__file__).parent

LAYERS: dict[str, float] = {
    "errors": 0,
    "checks": 0,  # what settings must be
    "models": 0,
    "seeds": 0,
    "server_address": 0,
    "shake": 0,
    "artifacts": 0,
    "metrics": 0,
    "schema": 0,
    "matching": 0,
    "stamping": 0,
    "features": 0,  # what a head reads off the answers, in numpy
    "datasets": 1.0,
    "attacks": 1.1,
    "architectures": 1.1,
    "formats": 1.2,
    "training": 2,
    "stacked_training": 2.1,
    "zoo": 3,
    "inversion": 3.5,  # trigger inversion, in numpy
    "fitting": 3.5,  # the half of the detectors that learns
    "detectors": 4,
    "scanning": 5,
    "evaluation": 5,
    "evasion": 5,
    "reproduction": 5,
    "reports": 6,
    "figures": 6,
    "cli": 7,
    "__main__": 7,
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> Iterator[str]:
    """Yield the names below `litmus` that a module imports, `litmus.NAME` for the package's own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module == "litmus":
                yield from (f"litmus.{alias.name}" for alias in node.names)
            elif (node.module or "").startswith("litmus."):
                yield str(node.module)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.startswith("litmus."))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "litmus":
            # After `import litmus`, whatever is reached through the package.
            yield f"litmus.{node.attr}"


def violations(module: str, source: str) -> list[str]:
    """Return what is wrong with a module's imports, in words."""
    own = module.split(".")[1]
    if own not in LAYERS:
        return [f"{module}: no layer is known for {own}; add it to LAYERS"]
    found = []
    for name in imported(source):
        if name == "litmus.__version__":
            continue
        target = name.split(".")[1] if name.startswith("litmus.") else name
        if target not in LAYERS:
            found.append(f"{module} imports {name}, which has no layer")
        elif LAYERS[target] > LAYERS[own]:
            found.append(f"{module} imports {name}, which is above it")
    return found


def test_imports_point_down() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path != SOURCE / "__init__.py":  # its lazy names may be from anywhere
            found += violations(module_name(path), path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("litmus.zoo.spec", "from litmus.training import train", None),
        ("litmus.zoo.spec", "import litmus.training as t", None),
        ("litmus.zoo.spec", "from litmus import training", None),
        ("litmus.zoo.spec", "from litmus.zoo.recipe import Recipe", None),
        ("litmus.zoo.spec", "import litmus\nlitmus.__version__", None),
        ("litmus.zoo.spec", "import numpy, torch\nfrom datasets import x", None),
        ("litmus.zoo.spec", "from litmus.cli import app", "above it"),
        ("litmus.zoo.spec", "import os, litmus.cli", "above it"),
        ("litmus.zoo.spec", "from litmus import scanning", "above it"),
        ("litmus.zoo.spec", "from litmus import scan", "no layer"),
        ("litmus.zoo.spec", "import litmus\nlitmus.scan('x')", "no layer"),
        ("litmus.zoo.spec", "from ..cli import app", "no layer"),
        ("litmus.zoo.spec", "def f():\n    from litmus.detectors import x", "above it"),
        ("litmus.models", "if TYPE_CHECKING:\n    from litmus.formats import x", "above it"),
        ("litmus.attacks.patch", "from litmus.formats import x", "above it"),
        ("litmus.datasets.folder", "from litmus.attacks import Patch", "above it"),
        ("litmus.utils", "", "no layer is known for utils"),
    ],
)
def test_the_check_finds_what_points_up(module: str, source: str, fault: str | None) -> None:
    found = violations(module, source)
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]
