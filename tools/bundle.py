"""Make a detector that comes with Litmus: build its zoo, fit it, put it where the package has it.

    python -m tools.bundle NAME [--zoos DIR] [--workers N] [-o FILE] [--dry-run]

`recipes/bundled/NAME.toml` says what from. It is two commands, `litmus zoo build` and `litmus fit`,
which are printed and run in the repository; the first can be stopped and started again. A recipe
with `[further]` has two more: another zoo, which calibrates the parts and on which others are
fitted. Each `[[also]]` has two: a zoo whose clean models the detector is calibrated on besides.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["BundleRecipe", "Population", "commands", "load_bundle_recipe"]

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RECIPES: Final = REPOSITORY / "recipes" / "bundled"


@dataclass(frozen=True, kw_only=True)
class BundleRecipe:
    """What a bundled detector is made of.

    `zoo` is the recipe of its zoo, relative to the repository, of which the first `scale` is
    built; `detector` the kind that is fitted, with `seed` and `settings` as `--set` takes them.
    Where there is a `further` one, it is fitted on a zoo of its own, with the parts of this one.
    `also` are zoos that only calibrate it.
    """

    zoo: str
    detector: str
    scale: float = 1.0
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    further: BundleRecipe | None = None
    also: tuple[Population, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Population:
    """A zoo, as in `BundleRecipe`; `start_from` is the name of the one that its models start from.

    That one lies in the same folder.
    """

    zoo: str
    scale: float = 1.0
    start_from: str | None = None


def load_bundle_recipe(name: str, folder: Path = RECIPES) -> BundleRecipe:
    """Read `NAME.toml`; raises SystemExit, which names those that there are, where it is none."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise SystemExit(f"no recipe {path}; there are: {there}")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    further = table.pop("further", None)
    also = tuple(Population(**each) for each in table.pop("also", []))
    return BundleRecipe(**table, further=BundleRecipe(**further) if further else None, also=also)


def commands(
    recipe: BundleRecipe, output: Path, *, zoos: Path, workers: int | None = None
) -> list[list[str]]:
    """Return the commands, two a zoo, which goes to a folder in `zoos` named like its recipe.

    A detector that only hands its parts on goes there, too.
    """
    made = _fitting(recipe, output, zoos, workers)
    for population in recipe.also:
        zoo, build = _building(population.zoo, population.scale, zoos, workers)
        if population.start_from is not None:
            build += ["--start-from", str(zoos / population.start_from)]
        made += [build, ["litmus", "calibrate", str(output), zoo, "-o", str(output)]]
    return made


def _fitting(
    recipe: BundleRecipe, output: Path, zoos: Path, workers: int | None
) -> list[list[str]]:
    if recipe.further is None:
        return _build_and_fit(recipe, output, zoos, workers)
    parts = zoos / f"{output.stem}-parts.litmus"
    first = _build_and_fit(recipe, parts, zoos, workers)
    build, fit = _build_and_fit(recipe.further, output, zoos, workers)
    return [*first, build, [*fit, "--parts-from", str(parts)]]


def _building(recipe: str, scale: float, zoos: Path, workers: int | None) -> tuple[str, list[str]]:
    text = (REPOSITORY / recipe).read_text(encoding="utf-8")
    zoo = str(zoos / tomllib.loads(text)["name"])
    build = ["litmus", "zoo", "build", recipe, "-o", zoo, "--scale", str(scale)]
    return zoo, build + (["--workers", str(workers)] if workers else [])


def _build_and_fit(
    recipe: BundleRecipe, output: Path, zoos: Path, workers: int | None
) -> list[list[str]]:
    zoo, build = _building(recipe.zoo, recipe.scale, zoos, workers)
    fit = ["litmus", "fit", zoo, "-o", str(output), "--detector", recipe.detector]
    fit += ["--seed", str(recipe.seed)]
    for name, value in recipe.settings.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        fit += ["--set", f"{name}={shown}"]
    return [build, fit]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the commands and run them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="a data set: the stem of a file in recipes/bundled")
    parser.add_argument("--zoos", type=Path, default=Path("zoos"), help="holds the zoo's folder")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("-o", "--output", type=Path, help="default: where the package has it")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    options = parser.parse_args(arguments)
    output = options.output or Path("src", "litmus", "bundled", f"{options.name}.litmus")
    recipe = load_bundle_recipe(options.name)
    for command in commands(recipe, output, zoos=options.zoos, workers=options.workers):
        print(shlex.join(command), flush=True)
        if not options.dry_run:
            subprocess.run([sys.executable, "-m", *command], check=True, cwd=REPOSITORY)


if __name__ == "__main__":
    main()
