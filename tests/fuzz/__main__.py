"""`python -m tests.fuzz`: thousands of mutated inputs for each parser; see `make fuzz`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import litmus
from litmus.artifacts import machine_facts, write_atomically
from tests.fuzz.run import Report, fuzz, read_one
from tests.fuzz.scanned import SCAN, fuzz_scans
from tests.fuzz.targets import TARGETS

_SHOWN: Final = 5


def main() -> int:
    """Print a line a target, and how to repeat each finding; return 1 if there is any."""
    known = [*TARGETS, SCAN]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(known)}")
    parser.add_argument("--inputs", type=int, default=5000, help="of each target (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same inputs")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat one input, here")
    parser.add_argument("-o", "--output", type=Path, help="write what came of it to this file, too")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(known):
        parser.error(f"no such target: {', '.join(unknown)}")
    chosen = options.targets or known
    if options.only is not None:
        if len(chosen) != 1 or chosen[0] == SCAN:
            parser.error(f"--only goes with one of {', '.join(TARGETS)}")
        return _repeat(chosen[0], options.seed, options.only)
    reports = {target: _fuzz(target, options.seed, options.inputs) for target in chosen}
    if options.output is not None:
        _write(reports, options.seed, options.output)
    return int(any(report.faults for report in reports.values()))


def _write(reports: dict[str, Report], seed: int, output: Path) -> None:
    """Write what became of each target's inputs, with command, version and machine."""
    rows: list[dict[str, Any]] = [
        {
            "target": target,
            "inputs": len(report.outcomes),
            "read": len(report.outcomes) - report.refused - len(report.faults),
            "refused": report.refused,
            "faults": len(report.faults),
            "seconds": round(report.seconds, 1),
        }
        for target, report in reports.items()
    ]
    content = {
        "command": "python -m tests.fuzz",
        "seed": seed,
        "litmus_version": litmus.__version__,
        "machine": machine_facts(),
        "rows": rows,
    }
    write_atomically(output, json.dumps(content, indent=1) + "\n")


def _repeat(target: str, seed: int, number: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcome = read_one(target, seed, number, Path(folder))
    print(f"{target}: {outcome.fault or ('refused' if outcome.refused else 'read')}")
    return int(bool(outcome.fault))


def _fuzz(target: str, seed: int, inputs: int) -> Report:
    """Print what became of a target's inputs, and return it."""
    report = fuzz_scans(seed, inputs) if target == SCAN else fuzz(target, seed, inputs)
    faults = report.faults
    print(
        f"{target}: {inputs} inputs of seed {seed}: {inputs - report.refused - len(faults)} read, "
        f"{report.refused} refused, {len(faults)} faults; {report.seconds:.0f} s",
        flush=True,
    )
    for outcome in faults[:_SHOWN]:
        print(outcome.fault)
        if target != SCAN:
            print(f"again: python -m tests.fuzz {target} --seed {seed} --only {outcome.number}")
    return report


if __name__ == "__main__":
    sys.exit(main())
