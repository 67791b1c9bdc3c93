"""Verbs on detectors: scan with one, fit one, list those that are bundled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import write_atomically
from litmus.cli.options import choice, deliver, numbers, parse_settings
from litmus.cli.progress import Bar, bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.fitting import MemberReport

__all__ = ["detectors", "fit", "fit_progress", "member_progress", "scan"]


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Model files or folders.")],
    detector: Annotated[
        str | None,
        typer.Option(
            help="A bundled detector's name, or a .litmus file (default: a bundled one, by the "
            "model's shape)."
        ),
    ] = None,
    fpr: Annotated[float, typer.Option(help="The false-positive rate to flag at.")] = 0.05,
    format_: Annotated[str, typer.Option("-f", "--format", help="text or json.")] = "text",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the report to a file.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="255 for models that eat raw bytes (default: 1).")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Subtracted after scaling: one number or one a channel, 0.5,0.5,0.5."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by last, like --mean.")] = None,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc (default: from shape).")] = None,
    channels: Annotated[str | None, typer.Option(help="rgb or bgr (default: rgb).")] = None,
    outputs: Annotated[
        str | None, typer.Option(help="logits or probabilities (default: from the graph).")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="The network of files with weights alone: resnet:width=16,blocks=2, say, or "
            "MODULE:FUNCTION of your own."
        ),
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the code that --architecture names.")
    ] = False,
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="Files scanned at a time.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds a file may take.")] = 60.0,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped file is an error.")] = False,
    show_skipped: Annotated[
        bool, typer.Option("--show-skipped", help="List skipped files in the text report too.")
    ] = False,
    fail_on: Annotated[
        str, typer.Option(help="Exit with 1 on: suspicious, inconclusive (too), or never.")
    ] = "suspicious",
) -> None:
    """Scan model files for backdoors.

    Exit codes: 0 nothing found, 1 something suspicious, 2 an error, 3 nothing scannable, 4 usage.
    """
    from litmus.detectors.candidates import Candidates
    from litmus.formats.preprocessing import Preprocessing
    from litmus.reports.scan import SCAN_REPORTS, ScanContext
    from litmus.scanning import Limits, exit_code
    from litmus.scanning import scan as run

    choice("--format", format_, tuple(SCAN_REPORTS))
    choice("--fail-on", fail_on, ("suspicious", "inconclusive", "never"))
    flags = Preprocessing.from_options(
        scale=scale,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        layout=layout,
        channels=channels,
        outputs=outputs,
    )
    candidates = Candidates.bundled() if detector is None else Candidates.of(detector)
    context = ScanContext(candidates=candidates, fpr=fpr, show_skipped=show_skipped)
    results = list(
        run(
            paths,
            detector=candidates,
            fpr=fpr,
            preprocessing=flags,
            jobs=jobs,
            limits=Limits(wall_seconds=timeout),
            architecture=architecture,
            trust_code=trust_code,
        )
    )
    deliver(SCAN_REPORTS[format_](results, context), output)
    raise typer.Exit(exit_code(results, strict=strict, fail_on=fail_on))


def detectors() -> None:
    """List the detectors that come with Litmus, with what they are for and how well they do."""
    from litmus.detectors import bundled_detectors, load_detector
    from litmus.reports.detectors import detectors_table

    typer.echo(
        detectors_table({name: load_detector(path) for name, path in bundled_detectors().items()}),
        nl=False,
    )


def fit(
    zoo: Annotated[Path, typer.Argument(metavar="ZOO", help="A zoo's folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.litmus")],
    detector: Annotated[
        str, typer.Option(help="ulp, noise, last_layer, max_margin, fused, ...: see `--set`.")
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
    seed: Annotated[int, typer.Option(help="Seed of patterns, folds, order, images.")] = 0,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="ulp, noise: draw the patterns.")
    ] = None,
) -> None:
    """Fit a detector on a zoo's training split and calibrate it.

    attack_based and neural_cleanse learn nothing: fitting only calibrates them.
    """
    from litmus.detectors import DETECTORS
    from litmus.detectors import fit as run
    from litmus.detectors.patterns import PatternDetector
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
    with bar("fitting") as progress:
        fitted = run(zoo, detector, seed=seed, on_progress=fit_progress(progress), **chosen)
    write_atomically(output, fitted.to_bytes())
    if picture is not None:
        from litmus.figures import patterns_by_member

        assert isinstance(fitted, PatternDetector)
        write_atomically(picture, patterns_by_member([m.patterns for m in fitted.members]))
    typer.echo(fitted_text(fitted, output), nl=False)


def fit_progress(progress: Bar) -> Callable[..., None]:
    """Show what a fit reports: members' epochs, or how many models of how many are done."""
    by_epoch = member_progress(progress)

    def report(*seen: Any) -> None:
        if len(seen) == 1:
            by_epoch(seen[0])
        else:
            progress(*seen)

    return report


def member_progress(progress: Bar) -> Callable[[MemberReport], None]:
    """Show the epochs of all members as one bar, with the last loss and validation AUC."""
    done = 0

    def report(r: MemberReport) -> None:
        nonlocal done
        done += 1  # members report from several threads; a lost count only shortens the bar
        note = f"loss {r.epoch.loss:.3f}, validation AUC {r.epoch.validation_auc:.3f}"
        progress(done, r.members * r.epoch.epochs, note)

    return report
