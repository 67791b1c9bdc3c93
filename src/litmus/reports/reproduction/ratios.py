"""Figure 4: detection by poison ratio."""

from __future__ import annotations

from dataclasses import asdict
from typing import TypeAlias

from litmus.reports.evaluation import markdown_table
from litmus.reports.reproduction.pages import as_json, opening, page, with_interval
from litmus.reproduction.poison_ratios import GATE, Figure4, RatioPoint

__all__ = ["figure4_files"]

Interval: TypeAlias = tuple[float | None, float | None, float | None]

_DETECTORS = ("ulp", "noise", "attack_based")
_NOTES = """\
- The paper holds ULP above .95 at every ratio, and sees noise fall to almost .60 at 1 %.
- The gated rows are of the models whose attack success is above {gate}; the ungated ones are of
  all, since what a failed attack leaves behind is part of the question.
- The clean models are shared by all ratios: the controls of the models at 50 %, which got as many
  extra images as an attack at 50 % does. At lower ratios a backdoored model takes up to 5 % fewer
  steps than they do.
- `attack_based` measures the first 20 backdoored models with test triggers of each ratio, and the
  same 20 clean ones; gated, those of the 20 that pass."""


def figure4_files(result: Figure4) -> dict[str, str]:
    """Return `figure4.json`, `figure4.md`, `figure4.svg` and `figure4-gated.svg`."""
    from litmus.figures import figure_poison_ratios

    content = as_json(
        result,
        dataset=result.dataset,
        num_patterns=result.num_patterns,
        gate=GATE,
        points=[{k: v for k, v in asdict(point).items() if k != "rows"} for point in result.points],
        rows=[
            {**row.to_json(), "poison_ratio": point.poison_ratio, "gated": point.gated}
            for point in result.points
            for row in point.rows
        ],
    )
    files = {"figure4.json": content, "figure4.md": _markdown(result)}
    for gated, name in ((False, "figure4.svg"), (True, "figure4-gated.svg")):
        points = [point for point in result.points if point.gated is gated]
        title = "models whose attack succeeded" if gated else "all models"
        files[name] = figure_poison_ratios(
            [point.poison_ratio for point in points],
            _lines(points, result.num_patterns),
            f"{result.dataset}, unseen triggers, {title}",
        )
    return files


def _lines(points: list[RatioPoint], num_patterns: int) -> dict[str, list[Interval]]:
    lines: dict[str, list[Interval]] = {
        "attack success": [(point.attack_success, None, None) for point in points]
    }
    for detector in _DETECTORS:
        label = detector if detector == "attack_based" else f"{detector}, M = {num_patterns}"
        lines[label] = [_interval(point, detector) for point in points]
    return lines


def _interval(point: RatioPoint, detector: str) -> Interval:
    for row in point.rows:
        if row.detector == detector:
            return row.auc, row.auc_low, row.auc_high
    return None, None, None


def _markdown(result: Figure4) -> str:
    sections = [opening(result, f"Figure 4: poison ratios on {result.dataset}")]
    for gated, title in ((False, "All models"), (True, f"Attack success above {GATE}")):
        picture = "figure4-gated.svg" if gated else "figure4.svg"
        points = [point for point in result.points if point.gated is gated]
        sections += [
            f"## {title}",
            f"![Detection by poison ratio]({picture})",
            markdown_table(_table(points, result.num_patterns)),
            "\n".join(
                f"- {100 * point.poison_ratio:g} %: no AUC, since {point.reason}"
                for point in points
                if point.reason
            ),
        ]
    return page(*sections, "## What to know", _NOTES.format(gate=GATE))


def _table(points: list[RatioPoint], num_patterns: int) -> list[list[str]]:
    header = [
        "poison ratio", "attack success", f"ulp, M = {num_patterns}", f"noise, M = {num_patterns}",
        "attack_based", "fitted on", "tested on (ulp, noise)", "tested on (attack_based)",
    ]  # fmt: skip
    lines = [header]
    for point in points:
        rows = {row.detector: row for row in point.rows}
        success = point.attack_success
        sizes = {name: f"{row.n_clean} + {row.n_backdoored}" for name, row in rows.items()}
        lines.append(
            [
                f"{100 * point.poison_ratio:g} %",
                "-" if success is None else f"{success:.3f} (n = {point.n_backdoored})",
                *(with_interval(rows[name]) if name in rows else "-" for name in _DETECTORS),
                str(point.n_training),
                sizes.get("ulp", "-"),
                sizes.get("attack_based", "-"),
            ]
        )
    return lines
