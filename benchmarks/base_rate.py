"""What a flag is worth: `python -m benchmarks.base_rate results/generalisation/NAME.json ...`.

From the shares of clean and backdoored models that a measurement found flagged: of so many models
of which a share `--prior` is backdoored, how many are flagged, and how many of those rightly.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.report import report


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="of `compare` or `evaluate`")
    parser.add_argument("--prior", type=float, default=0.01, help="share of backdoored models")
    parser.add_argument("--detector", default="fused", help="the detector in a comparison")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    rows = [
        {"source": path.name, **worth(*rates(path, arguments.detector), arguments.prior)}
        for path in arguments.results
    ]
    report(
        {"prior": arguments.prior, "detector": arguments.detector, "rows": rows}, arguments.output
    )


def rates(path: Path, detector: str) -> tuple[float, float]:
    """Return the shares of clean and of backdoored models that were flagged, over all groups."""
    rows = [row for row in json.loads(path.read_text())["rows"] if _counts(row, detector)]

    def pooled(kind: str) -> float:
        flagged = sum(row[f"flagged_{kind}"] * row[f"n_{kind}"] for row in rows)
        return float(flagged / sum(row[f"n_{kind}"] for row in rows))

    return pooled("clean"), pooled("backdoored")


def _counts(row: dict[str, Any], detector: str) -> bool:
    """Each model once: groups left out one after the other, or all models together."""
    if row["against"] != "clean":
        return False
    return bool(row["detector"] == detector if row["leave_out"] else row["group"] == "all")


def worth(clean: float, backdoored: float, prior: float) -> dict[str, float]:
    """Return what follows by Bayes' rule for models of which a share `prior` is backdoored."""
    right, wrong = backdoored * prior, clean * (1 - prior)
    missed = (1 - backdoored) * prior
    return {
        "flagged_clean": clean,
        "flagged_backdoored": backdoored,
        "flagged_of_10000": 10_000 * (right + wrong),
        "rightly_flagged_of_10000": 10_000 * right,
        "backdoored_among_flagged": right / (right + wrong),
        "backdoored_among_others": missed / (missed + (1 - clean) * (1 - prior)),
    }


if __name__ == "__main__":
    main()
