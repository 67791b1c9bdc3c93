"""The verb `evaluate`: on unseen triggers, or on groups that a fit left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import machine_facts, write_atomically
from litmus.cli.options import (
    Data,
    NominalRate,
    ReportFile,
    ZooFolders,
    choice,
    deliver,
    effort_named,
    given_command,
    load_by_label,
    open_zoo,
    parse_settings,
)
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.detectors.effort import Effort
    from litmus.zoo import Zoo

__all__ = ["evaluate"]


def evaluate(
    zoo: ZooFolders,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            "--detector",
            help="A .litmus file or bundled name; repeatable. With --leave-out: ulp, noise, ...",
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            help="architecture, attack, recipe or zoo: fit anew without each group, and judge it."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Leave out this group alone; repeatable."),
    ] = None,
    references: Annotated[
        bool,
        typer.Option("--references", help="Evaluate reference images instead of a detector."),
    ] = False,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="With --references: an ONNX model for other classes, or a folder; repeatable.",
        ),
    ] = None,
    parts_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.litmus",
            help="fused, with --leave-out: take parts from this detector, as litmus fit does.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the fit; repeatable."),
    ] = None,
    fpr: NominalRate = 0.05,
    format_: Annotated[
        str, typer.Option("-f", "--format", help="text, json or markdown.")
    ] = "text",
    output: ReportFile = None,
    roc: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the ROC curves.")
    ] = None,
    breakdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw the AUC by trigger size, poison ratio, ..."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap, and of fits.")] = 0,
    data: Data = None,
    effort: Annotated[
        str,
        typer.Option(
            help="fused: which parts are asked, as in a scan; thorough takes the data set's images."
        ),
    ] = "quick",
) -> None:
    """Evaluate detectors on a zoo's test models, whose triggers no detector was fitted on.

    Where the zoo has none, on all of its models, if no detector was fitted or calibrated on them.
    Several zoos are read as one.

    With --leave-out the training models are judged instead, each by a detector that was fitted on
    all groups but its own; the test models are not touched. With --references, too: each group's
    models are fed in several ways to reference images that were learned without it.
    """
    from litmus.reports.evaluation import EVALUATION_REPORTS

    choice("--format", format_, tuple(EVALUATION_REPORTS))
    hard = effort_named(effort)
    if references == bool(detector) or (others and not references):
        raise UsageError("expected either --detector or --references, and --others with the latter")
    if references:
        if leave_out or only or roc or breakdown or effort != "quick":
            raise UsageError("--references leaves groups out by itself, draws and scans nothing")
        deliver(_references(zoo, others or [], settings or [], seed, data, format_), output)
        return
    assert detector is not None
    if leave_out is not None:
        if roc is not None or len(detector) > 1:
            raise UsageError("--leave-out takes one --detector and draws no --roc", got=detector)
        report = _leave_out(
            zoo,
            detector[0],
            leave_out,
            only or [],
            settings or [],
            parts_from,
            fpr,
            seed,
            data,
            hard,
            breakdown,
            format_,
        )
    elif only or settings or parts_from:
        raise UsageError("--only, --set and --parts-from go with --leave-out")
    else:
        report = _unseen(zoo, detector, fpr, seed, data, hard, roc, breakdown, format_)
    deliver(report, output)


def _unseen(
    folders: list[Path],
    names: list[str],
    fpr: float,
    seed: int,
    data: Path | None,
    effort: Effort,
    roc: Path | None,
    breakdown: Path | None,
    format_: str,
) -> str:
    from litmus.evaluation import evaluate as run
    from litmus.reports.evaluation import EVALUATION_REPORTS, breakdown_svg

    loaded = load_by_label(names)
    zoo = open_zoo(*folders, data=data)
    with bar("scoring models") as progress:
        evaluation = run(
            zoo,
            loaded,
            fpr=fpr,
            seed=seed,
            effort=effort,
            on_progress=progress,
        )
    title = f"{zoo.entries[0].spec.dataset['name']}, unseen triggers"
    if roc is not None:
        from litmus.figures import roc_curves

        write_atomically(roc, roc_curves(evaluation.curves, title))
    if breakdown is not None:
        write_atomically(breakdown, breakdown_svg(evaluation.breakdown, title))
    return EVALUATION_REPORTS[format_](evaluation)


def _leave_out(
    folders: list[Path],
    kind: str,
    by: str,
    only: list[str],
    pairs: list[str],
    parts_from: str | None,
    fpr: float,
    seed: int,
    data: Path | None,
    effort: Effort,
    breakdown: Path | None,
    format_: str,
) -> str:
    from litmus.detectors import DETECTORS, fit
    from litmus.evaluation import leave_out as run
    from litmus.reports.evaluation import LEAVE_OUT_REPORTS, breakdown_svg

    choice("--detector", kind, tuple(DETECTORS))
    chosen: dict[str, Any] = parse_settings(DETECTORS[kind].defaults(), pairs)
    zoo = open_zoo(*folders, data=data)
    if kind == "fused" and effort != "thorough":
        # No other part would be asked.
        gradients = "+trigger_search+max_margin" if effort == "standard" else ""
        chosen.setdefault("parts", f"ulp+last_layer+stamps{gradients}")
    with bar("leaving out") as progress:
        result = run(
            zoo,
            partial(fit, detector=kind, seed=seed, parts_from=parts_from, **chosen),
            by=by,
            fpr=fpr,
            seed=seed,
            only=only,
            effort=effort,
            on_group=lambda group, done, total: progress(done, total, group),
        )
    if breakdown is not None:
        title = f"{zoo.recipe['name']}, {kind}, {by} left out"
        write_atomically(breakdown, breakdown_svg(result.breakdown, title))
    return LEAVE_OUT_REPORTS[format_](result, _provenance(zoo, chosen, seed))


def _references(
    folders: list[Path],
    others: list[Path],
    pairs: list[str],
    seed: int,
    data: Path | None,
    format_: str,
) -> str:
    from dataclasses import asdict

    from litmus.evaluation import evaluate_references
    from litmus.fitting import ReferenceSettings
    from litmus.reports.references import REFERENCE_REPORTS

    chosen = parse_settings(asdict(ReferenceSettings()), pairs)
    zoo = open_zoo(*folders, data=data)
    files = [file for path in others for file in _onnx_files(path)]
    with bar("leaving out") as progress:
        result = evaluate_references(
            zoo,
            others=files,
            seed=seed,
            on_group=lambda group, done, total: progress(done, total, group),
            **chosen,
        )
    return REFERENCE_REPORTS[format_](result, _provenance(zoo, chosen, seed))


def _onnx_files(path: Path) -> list[Path]:
    found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if not found:
        raise UsageError("no ONNX files in the folder", got=path, where="--others")
    return found


def _provenance(zoo: Zoo, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    import litmus

    return {
        "command": given_command(),
        "recipe": zoo.recipe,
        "settings": dict(settings),
        "seeds": [seed],
        "machine": machine_facts(),
        "litmus_version": litmus.__version__,
    }
