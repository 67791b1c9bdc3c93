"""`litmus zoo list` and a resume check on 10,000 zoo files: `python -m benchmarks.store_bench`."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.report import report
from litmus.artifacts import encode_tensors
from litmus.formats.zoo_file import ZOO_FORMAT, saved_weights
from litmus.models import InputSpec
from litmus.zoo import build
from litmus.zoo.expansion import expand
from litmus.zoo.recipe import Recipe, load_recipe
from litmus.zoo.store import write_recipe_table

DIGITS = Path(str(resources.files("litmus"))) / "recipes" / "digits.toml"


def write_zoo(recipe: Recipe, folder: Path) -> None:
    """Write the recipe's zoo with untrained networks: what is read is as long as in a real one."""
    write_recipe_table(folder, recipe.to_json())
    specs = expand(recipe, InputSpec(channels=1, height=28, width=28, num_classes=10))
    weights = saved_weights(specs[0].build_architecture().build(specs[0].input_spec, seed=0))
    for spec in specs:
        header: dict[str, Any] = {
            "format": ZOO_FORMAT,
            "format_version": 1,
            "id": spec.id,
            "seed": spec.seed,
            "spec": spec.to_json(),
            "trigger_id": spec.build_attack().trigger_id,
            "steps": 1000,
            "clean_accuracy": 0.99,
            "attack_success": 0.99,
            "class_names": [str(label) for label in range(10)],
        }
        (folder / f"{spec.id}.safetensors").write_bytes(encode_tensors(weights, header))
        (folder / f"{spec.id}.build.json").write_text("{}")


def seconds_to_list(folder: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of the whole command, with the start of Python and imports."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "litmus", "zoo", "list", "-f", "json", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - wall, cpu


def seconds_to_check(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """Return wall and CPU seconds that a build takes to find that nothing is missing."""
    wall, cpu = time.perf_counter(), time.process_time()
    (event,) = build(recipe, folder)
    assert event.done == event.total
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    recipe = replace(load_recipe(DIGITS), twins=arguments.models // 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_zoo(recipe, folder)
        listed = [seconds_to_list(folder) for _ in range(arguments.rounds)]
        checked = [seconds_to_check(recipe, folder) for _ in range(arguments.rounds)]
    figures: dict[str, object] = {"models": arguments.models}
    for name, rounds in (("list", listed), ("resume_check", checked)):
        wall, cpu = zip(*rounds, strict=True)
        figures[f"{name}_seconds"] = statistics.median(wall)
        figures[f"{name}_cpu_seconds"] = statistics.median(cpu)
    report(figures, arguments.output)


if __name__ == "__main__":
    main()
