"""The attack-based baseline with and without halving: `python -m benchmarks.inversion_bench ZOO`.

Three ways to the same score on the zoo's first training models, on one thread: pair by pair (on
`--loop-models` of them, since it is slow), all pairs together, and with successive halving; with
the rank correlation of the halved score to the full one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import spearmanr

from benchmarks.report import report
from litmus.formats import zoo_file
from litmus.inversion import ClassImages, PatchSettings, all_pairs, invert_patches
from litmus.models import Gradients
from litmus.zoo import Zoo


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--models", type=int, default=20, help="half of them backdoored")
    parser.add_argument("--loop-models", type=int, default=2)
    parser.add_argument("--place", default="corner")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    zoo = Zoo.open(arguments.zoo)
    entries = zoo.split("train")[: arguments.models]
    halving = PatchSettings(place=arguments.place)
    full = replace(halving, keep=1)
    clean = ClassImages.draw(
        zoo.load_dataset().test, zoo.input_spec, per_class=halving.images_per_class
    )
    networks = [zoo_file.load(entry.path).gradients() for entry in entries]
    pairs = all_pairs(clean.num_classes)

    def loop(network: Gradients) -> float:
        losses = [invert_patches(network, clean, full, pairs=[pair]).losses[pair] for pair in pairs]
        return -float(min(losses))

    def together(network: Gradients) -> float:
        return -invert_patches(network, clean, full).loss

    def halved(network: Gradients) -> float:
        return -invert_patches(network, clean, halving).loss

    few = networks[: arguments.loop_models]
    loop_seconds, loop_scores = timed(loop, few)
    few_seconds, _ = timed(halved, few)
    full_seconds, full_scores = timed(together, networks)
    halved_seconds, halved_scores = timed(halved, networks)
    report(
        {
            "dataset": str(entries[0].spec.dataset["name"]),
            "pairs": len(pairs),
            "models": len(networks),
            "loop_models": len(few),
            "loop_cpu_seconds_per_model": loop_seconds,
            "together_cpu_seconds_per_model": full_seconds,
            "halved_cpu_seconds_per_model": halved_seconds,
            "loop_to_halved_on_the_same_models": loop_seconds / few_seconds,
            "rank_correlation_halved_to_full": float(spearmanr(full_scores, halved_scores)[0]),
            "largest_difference_of_loop_and_together": max(
                abs(a - b) for a, b in zip(loop_scores, full_scores, strict=False)
            ),
        },
        arguments.output,
    )


def timed(
    score: Callable[[Gradients], float], networks: list[Gradients]
) -> tuple[float, list[float]]:
    """Return CPU-seconds a model, and the scores."""
    start = time.process_time()
    scores = [score(network) for network in networks]
    return (time.process_time() - start) / len(networks), scores


if __name__ == "__main__":
    main()
