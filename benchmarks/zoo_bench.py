"""Models a minute with one worker and with two, in turn: `python benchmarks/zoo_bench.py`."""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import resources
from pathlib import Path

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
    arguments = parser.parse_args()
    ratios = []
    for _ in range(arguments.rounds):
        one, two = (rate(arguments.recipe, n, arguments.models) for n in (1, 2))
        ratios.append(two / one)
        print(f"1 worker {60 * one:.1f}, 2 workers {60 * two:.1f} models a minute: {two / one:.2f}")
    print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}")


if __name__ == "__main__":
    main()
