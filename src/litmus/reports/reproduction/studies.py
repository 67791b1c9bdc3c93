"""Timing, ablations and the test of the paper's intuition."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from litmus.reports.evaluation import markdown_table
from litmus.reports.reproduction.pages import (
    as_json,
    left_out,
    opening,
    page,
    plain_rows,
    with_interval,
)
from litmus.reproduction.ablations import Ablation, Ablations
from litmus.reproduction.intuition import Intuition
from litmus.reproduction.paper import PAPER_SECONDS, PAPER_SPEED_UP
from litmus.reproduction.timing import Timing, TimingRow

__all__ = ["ablations_files", "intuition_files", "timing_files"]


def timing_files(result: Timing) -> dict[str, str]:
    """Return `timing.json` and `timing.md`."""
    header = ["data set", "detector", "M", "a network, ours", "times ULP, ours",
              "a network, paper", "times ULP, paper", "models"]  # fmt: skip
    text = page(
        opening(result, "Section 4.4: time to scan one network"),
        left_out(result),
        "One thread, one run, one detector after the other on loaded networks; medians. The "
        "paper's are of one P100.",
        markdown_table([header, *(_timing_line(row) for row in result.rows)]),
        "\n".join(
            f"- {row.detector} on {row.dataset}: {row.note}" for row in result.rows if row.note
        ),
    )
    rows = [asdict(row) | {"paper_seconds": _paper_seconds(row)} for row in result.rows]
    return {"timing.json": as_json(result, rows=rows), "timing.md": text}


def ablations_files(result: Ablations) -> dict[str, str]:
    """Return `ablations.json` and `ablations.md`."""
    choices = list(dict.fromkeys(row.choice for row in result.rows))
    sections = []
    for choice in choices:
        rows = [row for row in result.rows if row.choice == choice]
        header = [choice, "fitted on", "AUC (95 %)", "accuracy", "tested on"]
        table = markdown_table([header, *(_ablation_line(row) for row in rows)])
        sections += [f"## {choice}", table]
    text = page(
        opening(result, f"Ablations of ULP on {result.dataset}"),
        f"M = {result.num_patterns}, one member a seed, everything but the one choice at its "
        "default (marked *). AUC is the mean over the seeds, on models with unseen triggers. Of "
        "the models that it is fitted on, a member keeps a fifth away and chooses its epoch by an "
        "eighth of the others.",
        *sections,
    )
    content = as_json(
        result,
        dataset=result.dataset,
        num_patterns=result.num_patterns,
        rows=[
            {k: v for k, v in vars(row).items() if k != "row"} | row.row.to_json()
            for row in result.rows
        ],
    )
    return {"ablations.json": content, "ablations.md": text}


def intuition_files(result: Intuition) -> dict[str, str]:
    """Return `intuition.json` and `intuition.md`."""
    content = as_json(
        result,
        dataset=result.dataset,
        num_patterns=result.num_patterns,
        rates=[asdict(rate) for rate in result.rates],
        rows=[row.to_json() for row in result.rows],
    )
    text = page(
        opening(result, f"Section 5: why litmus patterns work, on {result.dataset}"),
        "The paper's intuition: each pattern becomes a collection of triggers, so that a model "
        "trained with one of them responds to it.",
        "## Which class do the patterns raise?",
        "Of a backdoored test model, each class's mean log-probability over the patterns, minus "
        "the mean of that over the clean test models. Triggers of test models were seen by no "
        "pattern. In brackets the 95 % interval of the first seed alone.",
        markdown_table(_rates_table(result)),
        "## Are pasted triggers as good?",
        f"M = {result.num_patterns} patterns each: learned (ULP), random (noise), or all training "
        "triggers pasted at random places on black, with a head fitted as for noise.",
        markdown_table(plain_rows(result.rows, groups=True)),
    )
    return {"intuition.json": content, "intuition.md": text}


def _timing_line(row: TimingRow) -> list[str]:
    paper = _paper_seconds(row)
    theirs = PAPER_SECONDS.get(row.dataset, {})
    times = paper / theirs["ulp"] if paper is not None else None
    said = PAPER_SPEED_UP.get(row.dataset) if row.detector.startswith("attack_based") else None
    return [
        row.dataset,
        row.detector,
        "-" if row.num_patterns is None else str(row.num_patterns),
        _duration(row.seconds),
        f"{row.times_ulp:,.3g}" if row.times_ulp < 1000 else f"{row.times_ulp:,.0f}",
        "-" if paper is None else _duration(paper),
        f"{said:,}" if said else "-" if times is None else f"{times:,.0f}",
        str(row.models),
    ]


def _paper_seconds(row: TimingRow) -> float | None:
    # The paper's baseline has no halving, and nothing is said of batches.
    return PAPER_SECONDS.get(row.dataset, {}).get(row.detector.split(",")[0])


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _ablation_line(row: Ablation) -> list[str]:
    return [
        row.value + (" *" if row.default else ""),
        str(row.n_training),
        with_interval(row.row),
        "-" if row.row.accuracy is None else f"{row.row.accuracy:.3f}",
        f"{row.row.n_clean} + {row.row.n_backdoored}",
    ]


def _rates_table(result: Intuition) -> list[list[str]]:
    questions = list(dict.fromkeys(rate.question for rate in result.rates))
    lines = [["patterns", *questions, "chance", "models"]]
    for kind in dict.fromkeys(rate.patterns for rate in result.rates):
        own = [rate for rate in result.rates if rate.patterns == kind]
        cells = []
        for question in questions:
            rates = [rate for rate in own if rate.question == question]
            mean = float(np.mean([rate.rate for rate in rates]))
            cells.append(f"{mean:.3f} ({rates[0].low:.3f} to {rates[0].high:.3f})")
        lines.append([kind, *cells, f"{own[0].chance:.3f}", str(own[0].n)])
    return lines
