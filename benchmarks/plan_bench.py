"""What `litmus zoo plan` foretells against a real build: `python -m benchmarks.plan_bench`."""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import resources
from pathlib import Path

from benchmarks.report import report
from litmus.zoo import build, load_recipe
from litmus.zoo.plan import Nodes, plan_zoo


def main() -> None:
    """Plan the first models of a recipe, build them with one worker, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    digits = Path(str(resources.files("litmus"))) / "recipes" / "digits.toml"
    parser.add_argument("--recipe", type=Path, default=digits)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    scale = arguments.models / (2 * recipe.twins)
    plan = plan_zoo(recipe, scale=scale)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # Each event is an attempt, which costs the same whether it is accepted or not.
        attempts = [event.cpu_seconds for event in build(recipe, folder, scale=scale)][1:]
    wall = time.perf_counter() - start
    planned = plan.seconds / plan.attempts
    built = sum(attempts) / len(attempts)
    report(
        {
            "recipe": recipe.name,
            "models": plan.models,
            "attempts": len(attempts),
            "planned_cpu_seconds_per_attempt": planned,
            "built_cpu_seconds_per_attempt": built,
            "planned_over_built": planned / built,
            "planned_hours_on_an_idle_machine": plan.hours((Nodes(),)),
            "wall_hours_with_the_load_above": wall / 3600,
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()
