"""Draw what trigger searches reach in the models of a zoo, form by form.

    python -m tools.search_figure ZOO DETECTOR -o FILE.svg

Of each model the share of images that the best candidate turns. What a fit has kept beside the zoo
is not searched again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from litmus.artifacts import write_atomically
from litmus.detectors import load_detector
from litmus.detectors.fused import FusedDetector
from litmus.detectors.trigger_search import TriggerSearchDetector
from litmus.figures import figure_populations
from litmus.zoo import Zoo

__all__ = ["main"]

_END = ": success"


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, or read what was found, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path)
    parser.add_argument("detector", help="a file or a bundled one's name")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    detector, zoo = load_detector(options.detector), Zoo.open(options.zoo)
    if isinstance(detector, FusedDetector):
        detector = detector.parts[TriggerSearchDetector.name]
    if not isinstance(detector, TriggerSearchDetector):
        raise SystemExit(f"{options.detector} has no trigger search")
    entries = zoo.split("train") or zoo.split("test")
    found = np.array([detector.known_statistics(entry) for entry in entries])
    backdoored = np.array([entry.backdoored for entry in entries])
    rows = {
        name.removesuffix(_END): (found[~backdoored, i], found[backdoored, i])
        for i, name in enumerate(detector.statistic_names)
        if name.endswith(_END)
    }
    title = f"{zoo.recipe['name']}: what the best candidate of each form turns"
    write_atomically(options.output, figure_populations(rows, "share of other images", title))


if __name__ == "__main__":
    main()
