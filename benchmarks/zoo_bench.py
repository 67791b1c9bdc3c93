"""Models a minute with one worker and with two, in turn: `python -m benchmarks.zoo_bench`."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib import resources
from pathlib import Path

from benchmarks.report import report
from litmus.zoo import build, load_recipe


def rate(recipe: Path, workers: int, models: int) -> float:
    """Return models a second, from the first accepted model on (start-up left out)."""
    parsed = load_recipe(recipe)
    with tempfile.TemporaryDirectory() as folder:
        scale = models / (2 * parsed.twins)
        done: list[float] = []
        for event in build(parsed, folder, workers=workers, scale=scale):
            if event.kind == "accepted":
                done.append(time.perf_counter())
    # The first `workers` models include the workers' start.
    return (len(done) - workers) / (done[-1] - done[workers - 1])


def main() -> None:
    """Print the rates of each round and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    digits = Path(str(resources.files("litmus"))) / "recipes" / "digits.toml"
    parser.add_argument("--recipe", type=Path, default=digits)
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    rounds = [
        [rate(arguments.recipe, workers, arguments.models) for workers in (1, 2)]
        for _ in range(arguments.rounds)
    ]
    report(
        {
            "recipe": load_recipe(arguments.recipe).name,
            "models": arguments.models,
            "models_per_minute_1_worker": [60 * one for one, _ in rounds],
            "models_per_minute_2_workers": [60 * two for _, two in rounds],
            "median_ratio": statistics.median(two / one for one, two in rounds),
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()
