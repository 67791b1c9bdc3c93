"""Seconds and peak memory of one fit: `python -m benchmarks.fit_bench ZOO --models 250`.

One member, 10 patterns and 60 epochs by default: the work of a detector that is fitted on that
many models. Ensembles of five run their members side by side.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import report
from litmus.fitting import PatternSettings
from litmus.fitting.learn import learn
from litmus.fitting.population import Population
from litmus.zoo import Zoo


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--models", type=int, default=250)
    parser.add_argument("--validation", type=int, default=30)
    parser.add_argument("--patterns", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    entries = Zoo.open(arguments.zoo).entries[: arguments.models + arguments.validation]
    if len(entries) < arguments.models + arguments.validation:
        raise SystemExit(f"the zoo has only {len(entries)} models")
    start = time.perf_counter()
    population = Population.load(entries)
    loaded = time.perf_counter()
    learn(
        population.subset(np.arange(arguments.models)),
        population.subset(np.arange(arguments.models, len(entries))),
        entries[0].spec.input_spec,
        PatternSettings(num_patterns=arguments.patterns, epochs=arguments.epochs),
        seed=0,
    )
    fitted = time.perf_counter() - loaded
    steps = arguments.models * arguments.epochs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(
        {
            "models": arguments.models,
            "num_patterns": arguments.patterns,
            "epochs": arguments.epochs,
            "threads": arguments.threads,
            "load_seconds": loaded - start,
            "fit_seconds": fitted,
            "ms_per_model_and_epoch": 1e3 * fitted / steps,
            "peak_memory_mib": peak,
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()
