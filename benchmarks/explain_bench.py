"""How often `litmus explain` is right: `python -m benchmarks.explain_bench ZOO --images NAME`.

On the first backdoored and clean test models of a zoo, each explained as a file: whether the pair
of classes whose patch works, or the mask that stands out, names the backdoor's target class, how
often either points anywhere in a clean model, and how much the patch looks like the trigger.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from litmus.attacks.patch import Patch
from litmus.errors import ModelError
from litmus.scanning.explaining import ExplainSettings, explain
from litmus.scanning.explanation import Explanation
from litmus.zoo import Zoo, ZooEntry


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--images", required=True, help="as for `litmus explain`")
    parser.add_argument("--models", type=int, default=10, help="backdoored ones, and clean ones")
    parser.add_argument("--place", default="corner", help="as for `litmus explain`")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    zoo = Zoo.open(arguments.zoo)
    by_kind = {
        kind: [entry for entry in zoo.split("test") if entry.spec.backdoored is kind]
        for kind in (True, False)
    }
    settings = ExplainSettings(place=arguments.place)
    rows = [
        row(entry, arguments.images, settings)
        for entries in by_kind.values()
        for entry in entries[: arguments.models]
    ]
    report(
        {
            "dataset": str(zoo.entries[0].spec.dataset["name"]),
            "place": arguments.place,
            "backdoored": totals([each for each in rows if each["backdoored"]]),
            "clean": totals([each for each in rows if not each["backdoored"]]),
            "rows": rows,
        },
        arguments.output,
    )


def row(entry: ZooEntry, images: str, settings: ExplainSettings) -> dict[str, Any]:
    """Explain one model, and compare with what its header says."""
    started = time.perf_counter()
    found = explain(entry.path, images=images, settings=settings)
    if not isinstance(found, Explanation) or found.pair is None or found.smallest is None:
        raise ModelError("it could not be explained", got=found, where=entry.path)
    attack = entry.spec.build_attack()
    target = entry.spec.attack["target_class"]
    out = found.standing_out
    return {
        "id": entry.id,
        "backdoored": entry.spec.backdoored,
        "treatment": entry.spec.treatment,
        "source_class": entry.spec.attack["source_class"],
        "target_class": target,
        "likely_target": found.likely_target,
        "pair": [found.pair.source_class, found.pair.target_class],
        "pair_flips": [found.pair.flips.turned, found.pair.flips.images],
        "pair_works": found.pair.works,
        "smallest_mask": found.smallest.target_class,
        "anomaly_index": found.anomaly_index,
        "mask_stands_out": out is not None,
        "correlation_with_trigger": likeness(found.pair.patch, attack),
        "seconds": time.perf_counter() - started,
    }


def likeness(patch: np.ndarray[Any, Any], attack: object) -> float | None:
    """The correlation of a patch's pixels with those of the trigger; None for other sizes."""
    if not isinstance(attack, Patch) or len(attack.triggers) != 1:
        return None
    true = attack.triggers[0].pixels(len(patch)).numpy() / 255
    return (
        float(np.corrcoef(true.ravel(), patch.ravel())[0, 1]) if true.shape == patch.shape else None
    )


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of how many models this is so."""

    def count(name: str, key: str | None = None) -> int:
        return sum(bool(r[name]) and (key is None or r[key] == r["target_class"]) for r in rows)

    likely = [r for r in rows if r["likely_target"] is not None]
    return {
        "models": len(rows),
        "points_to_a_class": len(likely),
        "points_to_the_target": sum(r["likely_target"] == r["target_class"] for r in likely),
        "pair_works": count("pair_works"),
        "pair_is_of_the_target": sum(r["pair"][1] == r["target_class"] for r in rows),
        "pair_is_the_backdoors": sum(
            r["pair"] == [r["source_class"], r["target_class"]] for r in rows
        ),
        "mask_stands_out": count("mask_stands_out"),
        "smallest_mask_is_of_the_target": sum(
            r["smallest_mask"] == r["target_class"] for r in rows
        ),
        "mean_correlation_with_trigger": float(
            np.mean([r["correlation_with_trigger"] for r in rows])
        ),
        "median_seconds": float(np.median([r["seconds"] for r in rows])),
    }


if __name__ == "__main__":
    main()
