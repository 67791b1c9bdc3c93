"""Verbs on detectors: scan with one, fit one, list those that are bundled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import sha256_of, write_atomically
from litmus.cli.completion import detector_names, effort_names, fail_on_names, report_names
from litmus.cli.options import (
    Channels,
    Data,
    Layout,
    Mean,
    Outputs,
    ReportFile,
    Scale,
    Std,
    TrustCode,
    ZooFolders,
    choice,
    deliver,
    effort_named,
    for_file,
    numbers,
    open_zoo,
    parse_settings,
    report_files,
    scan_context,
)
from litmus.cli.progress import Bar, bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.detectors import Detector
    from litmus.fitting import MemberReport
    from litmus.zoo import Zoo

__all__ = ["detectors", "fit", "fit_progress", "member_progress", "scan"]


def scan(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Model files, folders, or http://HOST:PORT/v2/models/NAME.",
        ),
    ],
    detector: Annotated[
        str | None,
        typer.Option(
            help="A bundled detector's name, or a .litmus file (default: a bundled one, by the "
            "model's shape).",
            autocompletion=detector_names,
        ),
    ] = None,
    fpr: Annotated[float, typer.Option(help="The false-positive rate to flag at.")] = 0.05,
    format_: Annotated[
        str,
        typer.Option(
            "-f",
            "--format",
            help="text, json, sarif, junit, markdown or html.",
            autocompletion=report_names,
        ),
    ] = "text",
    output: ReportFile = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    channels: Channels = None,
    outputs: Outputs = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="The network of files with weights alone: resnet:width=16,blocks=2, say, or "
            "MODULE:FUNCTION of your own."
        ),
    ] = None,
    trust_code: TrustCode = False,
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="Files scanned at a time.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a file may take (default: 60, 600 or 1800, by --effort)."),
    ] = None,
    effort: Annotated[
        str,
        typer.Option(
            help="quick: no gradients; standard: the trigger search, too; thorough: all parts.",
            autocompletion=effort_names,
        ),
    ] = "standard",
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Pictures of the model's domain; some parts of --effort thorough want one folder "
            "a class.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped file is an error.")] = False,
    show_skipped: Annotated[
        bool, typer.Option("--show-skipped", help="List skipped files in the text report too.")
    ] = False,
    fail_on: Annotated[
        str,
        typer.Option(
            help="Exit with 1 on: suspicious, inconclusive (too), or never.",
            autocompletion=fail_on_names,
        ),
    ] = "suspicious",
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON report: what it has found is accepted."),
    ] = None,
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            metavar="FORMAT=FILE",
            help="Write another report as well; repeatable. A json one is a baseline.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Text report: only what needs a look.")
    ] = False,
) -> None:
    """Scan model files for backdoors.

    Exit codes: 0 nothing found, 1 something suspicious, 2 an error, 3 nothing scannable, 4 usage.
    """
    from litmus.detectors.candidates import Candidates
    from litmus.formats.preprocessing import Preprocessing
    from litmus.reports.scan import SCAN_REPORTS
    from litmus.scanning import FAIL_ON, Limits, exit_code
    from litmus.scanning import scan as run
    from litmus.scanning.baseline import Baseline

    choice("--format", format_, tuple(SCAN_REPORTS))
    choice("--fail-on", fail_on, FAIL_ON)
    also = report_files(reports or [], tuple(SCAN_REPORTS))
    known = Baseline.read(baseline) if baseline else None
    flags = Preprocessing.from_options(
        scale=scale,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        layout=layout,
        channels=channels,
        outputs=outputs,
    )
    candidates = Candidates.bundled() if detector is None else Candidates.of(detector)
    hard = effort_named(effort)
    candidates = candidates.at_effort(hard, images=images is not None)
    limits = Limits.of(hard)
    if timeout is not None:
        limits = replace(limits, wall_seconds=timeout)
    results = list(
        run(
            paths,
            detector=candidates,
            fpr=fpr,
            preprocessing=flags,
            jobs=jobs,
            limits=limits,
            effort=hard,
            images=images,
            architecture=architecture,
            trust_code=trust_code,
        )
    )
    context = scan_context(
        to_terminal=format_ == "text" and output is None,
        candidates=candidates,
        fpr=fpr,
        show_skipped=show_skipped,
        strict=strict,
        fail_on=fail_on,
        baseline=known,
        quiet=quiet,
    )
    deliver(SCAN_REPORTS[format_](results, context), output)
    for name, file in also:
        write_atomically(file, SCAN_REPORTS[name](results, for_file(context)))
    raise typer.Exit(exit_code(results, strict=strict, fail_on=fail_on, baseline=known))


def detectors(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE]...",
            help="Describe these in full: bundled ones, or .litmus files (default: list all "
            "bundled ones).",
        ),
    ] = None,
    format_: Annotated[str, typer.Option("-f", "--format", help="text or json.")] = "text",
    output: ReportFile = None,
    kinds: Annotated[
        bool,
        typer.Option("--kinds", help="List what `litmus fit --detector` takes, with settings."),
    ] = False,
) -> None:
    """List the detectors that come with Litmus, or describe some, with how well they do."""
    from litmus.detectors import BUNDLED, DETECTORS, bundled_detectors, find_detector, load_detector
    from litmus.detectors.candidates import name_of
    from litmus.reports.detectors import DETECTOR_REPORTS, KIND_REPORTS, Described

    choice("--format", format_, tuple(DETECTOR_REPORTS))
    if kinds and names:
        raise UsageError("--kinds takes no names", got=", ".join(names or []))
    if kinds:
        deliver(KIND_REPORTS[format_](DETECTORS), output)
        return
    files = [find_detector(name) for name in names or bundled_detectors()]
    described = [
        Described(
            name=name_of(file),
            detector=load_detector(file),
            sha256=sha256_of(file),
            num_bytes=file.stat().st_size,
            bundled=file.parent == BUNDLED,
        )
        for file in files
    ]
    deliver(DETECTOR_REPORTS[format_](described, full=bool(names)), output)


def fit(
    zoo: ZooFolders,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.litmus")],
    detector: Annotated[
        str, typer.Option(help="ulp, noise, last_layer, stamps, fused, ...: see `--set`.")
    ] = "ulp",
    patterns: Annotated[
        int | None, typer.Option(help="M, the patterns of each member (default: 10).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another setting; repeatable. A name that is none lists them with defaults.",
        ),
    ] = None,
    parts_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.litmus",
            help="fused: take the parts and reference images that this detector (or a bundled one) "
            "has, which was fitted on another zoo; this zoo calibrates them.",
        ),
    ] = None,
    references: Annotated[
        bool, typer.Option(help="Learn reference images: see the README on scanning.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of patterns, folds, order, images.")] = 0,
    data: Data = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            help="ulp, noise: models that take more are streamed from a temporary file (default: "
            "half of the machine's memory).",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="ulp, noise: where models are computed, cpu or cuda.")
    ] = "cpu",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="ulp, noise: draw the patterns.")
    ] = None,
    curve: Annotated[
        bool | None,
        typer.Option(
            "--learning-curve/--no-learning-curve",
            help="Fit again on parts of the zoo, and say whether more models would help: takes "
            "less time than the fit itself (default: yes, where something is learned).",
        ),
    ] = None,
) -> None:
    """Fit a detector on a zoo's training split and calibrate it.

    What is read of a model for minutes is kept in ZOO/measured: a fit goes on where it was stopped.
    Several processes share the models of one zoo: torchrun --nproc-per-node N -m litmus fit ...
    """
    from litmus.detectors import DETECTORS
    from litmus.detectors import fit as run
    from litmus.detectors.patterns import PatternDetector
    from litmus.evaluation import learning_shares
    from litmus.reports.detectors import fitted_text

    choice("--detector", detector, tuple(DETECTORS))
    defaults = DETECTORS[detector].defaults()
    chosen = parse_settings(defaults, settings or [])
    if patterns is not None:
        chosen["num_patterns"] = patterns
    draws = issubclass(DETECTORS[detector], PatternDetector)
    if ("num_patterns" in chosen and "num_patterns" not in defaults) or (picture and not draws):
        option = "--patterns" if patterns is not None else "--picture"
        raise UsageError(f"{option} is not for this detector", got=detector, where="--detector")
    if memory is not None and memory < 0:
        raise UsageError("--memory is impossible", expected="at least 0", got=memory)
    limit = None if memory is None else memory * 2**20
    opened = replace(open_zoo(*zoo, data=data), memory=limit, device=device)
    learns = DETECTORS[detector].needs_zoo and parts_from is None
    shares = learning_shares(len(opened.split("train"))) if learns else ()
    if curve and not shares:
        raise UsageError(
            "there is no --learning-curve",
            expected="a detector that learns all of its parts, and a zoo of 48 training models or "
            "more",
            got=f"{detector}, {len(opened.split('train'))} models",
        )
    with _ranks(detector) as (first, title):
        started = time.monotonic()
        with bar(title) as progress:
            fitted = run(
                opened,
                detector,
                references=references,
                parts_from=parts_from,
                seed=seed,
                on_progress=fit_progress(progress),
                on_references=partial(progress, note="reference images"),
                **chosen,
            )
        if first:
            write_atomically(output, fitted.to_bytes())
        if shares and curve is not False:
            fitted = _with_curve(opened, fitted, shares, time.monotonic() - started, seed)
    if not first:
        return
    write_atomically(output, fitted.to_bytes())
    if picture is not None:
        from litmus.figures import patterns_by_member

        assert isinstance(fitted, PatternDetector)
        write_atomically(picture, patterns_by_member([m.patterns for m in fitted.members]))
    typer.echo(fitted_text(fitted, output), nl=False)


def calibrate(
    detector: Annotated[
        str, typer.Argument(metavar="DETECTOR", help="A .litmus file, or a bundled one's name.")
    ],
    zoo: ZooFolders,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.litmus", help="The detector to write.")
    ],
    data: Data = None,
) -> None:
    """Extend a detector's promise to the clean models of a zoo that it was not fitted on.

    They are one more population of its calibration: a p-value is then the largest of those among
    each population. Nothing is fitted, and what is read of a model for minutes is kept in
    ZOO/measured.
    """
    from litmus.detectors import load_detector
    from litmus.reports.detectors import calibrated_text

    loaded = load_detector(detector)
    with bar("reading clean models") as progress:
        calibrated = loaded.also_calibrated_on(open_zoo(*zoo, data=data), on_progress=progress)
    write_atomically(output, calibrated.to_bytes())
    typer.echo(calibrated_text(calibrated, output), nl=False)


@contextmanager
def _ranks(detector: str) -> Iterator[tuple[bool, str]]:
    """Join the processes of torchrun, if any: yield whether this one writes, and a bar's title."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True, "fitting"
        return
    from litmus.fitting import Ranks

    if detector not in ("ulp", "noise"):
        raise UsageError(
            "this detector is fitted by one process", expected="ulp or noise", got=detector
        )
    with Ranks.joined() as ranks:
        yield ranks.rank == 0, f"fitting, process {ranks.rank + 1} of {ranks.size}"


def _with_curve(
    zoo: Zoo, fitted: Detector, shares: Sequence[float], fit_seconds: float, seed: int
) -> Detector:
    """Return the detector with its learning curve, having said what that will cost."""
    from litmus.evaluation import learning_curve

    sizes = [round(share * fitted.scope["num_models"]) for share in shares]
    typer.echo(
        f"learning curve: fits again on {', '.join(map(str, sizes))} of "
        f"{fitted.scope['num_models']} models, which takes no longer than the fit, "
        f"{fit_seconds:.0f} s (--no-learning-curve goes without)",
        err=True,
    )
    with bar("learning curve") as progress:
        reports = fit_progress(progress, fits=len(shares))
        curve = learning_curve(zoo, fitted, shares, seed=seed, on_progress=reports)
    return replace(fitted, held_out={**fitted.held_out, "learning_curve": curve.to_json()})


def fit_progress(progress: Bar, *, fits: int = 1) -> Callable[..., None]:
    """Show what fits report: members' epochs, or how many models of how many are done."""
    by_epoch = member_progress(progress, fits=fits)

    def report(*seen: Any) -> None:
        if len(seen) == 1:
            by_epoch(seen[0])
        else:
            progress(*seen)

    return report


def member_progress(progress: Bar, *, fits: int = 1) -> Callable[[MemberReport], None]:
    """Show the epochs of all members as one bar, with the last loss and validation AUC."""
    done = 0

    def report(r: MemberReport) -> None:
        nonlocal done
        done += 1  # members report from several threads; a lost count only shortens the bar
        note = f"loss {r.epoch.loss:.3f}, validation AUC {r.epoch.validation_auc:.3f}"
        progress(done, fits * r.members * r.epoch.epochs, note)

    return report
