"""Verbs on detectors: scan with one, fit one, evaluate some, list those that are bundled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import sha256_of, write_atomically
from litmus.cli.progress import Bar, bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.fitting import MemberReport

__all__ = ["detectors", "evaluate", "fit", "member_progress", "scan"]


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Model files or folders.")],
    detector: Annotated[str, typer.Option(help="A bundled detector's name, or a .litmus file.")],
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
    from litmus.detectors import find_detector, load_detector
    from litmus.formats.preprocessing import Preprocessing
    from litmus.reports.scan import SCAN_REPORTS, ScanContext
    from litmus.scanning import Limits, exit_code
    from litmus.scanning import scan as run

    _choice("--format", format_, tuple(SCAN_REPORTS))
    _choice("--fail-on", fail_on, ("suspicious", "inconclusive", "never"))
    flags = Preprocessing.from_options(
        scale=scale,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        layout=layout,
        channels=channels,
        outputs=outputs,
    )
    file = find_detector(detector)
    context = ScanContext(
        name=detector,
        sha256=sha256_of(file),
        detector=load_detector(file),
        fpr=fpr,
        show_skipped=show_skipped,
    )
    results = list(
        run(
            paths,
            detector=file,
            fpr=fpr,
            preprocessing=flags,
            jobs=jobs,
            limits=Limits(wall_seconds=timeout),
        )
    )
    _deliver(SCAN_REPORTS[format_](results, context), output)
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
        str, typer.Option(help="ulp, noise, attack_based or neural_cleanse.")
    ] = "ulp",
    patterns: Annotated[
        int | None, typer.Option(help="M, the patterns of each member (default: 10).")
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(help="Members of the five-fold ensemble to fit, 1 to 5 (default: 5)."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="concatenate, max or mean (default: concatenate).")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="log_probs or logits (default: log_probs).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the zoo's models (default: 60).")
    ] = None,
    tv_weight: Annotated[
        float | None, typer.Option(help="Lambda, the weight of total variation.")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Share of channels that model dropout removes.")
    ] = None,
    models: Annotated[
        int | None,
        typer.Option(
            help="attack_based, neural_cleanse: models of each kind to calibrate on (default: 20)."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="attack_based: the patch's side in pixels (default: 5).")
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(help="attack_based: corner, anywhere or surface (default: corner)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of patterns, folds, order, images.")] = 0,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="ulp, noise: draw the patterns.")
    ] = None,
) -> None:
    """Fit a detector on a zoo's training split and calibrate it.

    attack_based and neural_cleanse learn nothing: fitting only calibrates them.
    """
    from litmus.detectors import fit as run
    from litmus.reports.detectors import fitted_text

    learning = {
        "num_patterns": patterns,
        "members": members,
        "pooling": pooling,
        "features": features,
        "epochs": epochs,
        "tv_weight": tv_weight,
        "dropout": dropout,
    }
    inverting = {"models": models, "size": size, "place": place}
    settings = _settings_of(detector, learning, inverting, picture)
    with bar("fitting") as progress:
        report = progress if _inverts(detector) else member_progress(progress)
        fitted = run(zoo, detector, seed=seed, on_progress=report, **settings)
    write_atomically(output, fitted.to_bytes())
    if picture is not None:
        from litmus.detectors.patterns import PatternDetector
        from litmus.figures import patterns_by_member

        assert isinstance(fitted, PatternDetector)
        write_atomically(picture, patterns_by_member([m.patterns for m in fitted.members]))
    typer.echo(fitted_text(fitted, output), nl=False)


def _inverts(detector: str) -> bool:
    from litmus.detectors import DETECTORS, InversionDetector

    _choice("--detector", detector, tuple(DETECTORS))
    return issubclass(DETECTORS[detector], InversionDetector)


def _settings_of(
    detector: str,
    learning: Mapping[str, object],
    inverting: Mapping[str, object],
    picture: Path | None,
) -> dict[str, Any]:
    """The options that were given; raises UsageError for one of the other kind of detector."""
    own, others = dict(learning), {**inverting}
    if _inverts(detector):
        own, others = dict(inverting), {**learning, "picture": picture}
    for name, value in others.items():
        if value is not None:
            option = "patterns" if name == "num_patterns" else name.replace("_", "-")
            raise UsageError(
                f"--{option} is not for this detector", got=detector, where="--detector"
            )
    return {name: value for name, value in own.items() if value is not None}


def evaluate(
    zoo: Annotated[Path, typer.Argument(metavar="ZOO", help="A zoo's folder.")],
    detector: Annotated[
        list[str], typer.Option("--detector", help="A .litmus file or bundled name; repeatable.")
    ],
    fpr: Annotated[float, typer.Option(help="The nominal false-positive rate.")] = 0.05,
    format_: Annotated[
        str, typer.Option("-f", "--format", help="text, json or markdown.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the report to a file.")
    ] = None,
    roc: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the ROC curves.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Local images, for detectors that need clean ones."),
    ] = None,
) -> None:
    """Evaluate detectors on a zoo's test models, whose triggers no detector was fitted on."""
    from litmus.detectors import load_detector
    from litmus.evaluation import evaluate as run
    from litmus.reports.evaluation import EVALUATION_REPORTS
    from litmus.zoo import Zoo

    _choice("--format", format_, tuple(EVALUATION_REPORTS))
    loaded = {_label(name, detector): load_detector(name) for name in detector}
    if len(loaded) < len(detector):
        raise UsageError("a detector is named twice", got=detector, where="--detector")
    opened = Zoo.open(zoo)
    needs_images = any(d.needs_images for d in loaded.values())
    images = opened.load_dataset(data=data).test if needs_images else None
    with bar("scoring models") as progress:
        evaluation = run(opened, loaded, fpr=fpr, seed=seed, images=images, on_progress=progress)
    if roc is not None:
        from litmus.figures import roc_curves

        dataset = opened.entries[0].spec.dataset["name"]
        write_atomically(roc, roc_curves(evaluation.curves, f"{dataset}, unseen triggers"))
    _deliver(EVALUATION_REPORTS[format_](evaluation), output)


def _label(name: str, all_names: list[str]) -> str:
    """The file's stem, or its whole path where two stems are equal."""
    stems = [Path(other).stem for other in all_names]
    return name if stems.count(Path(name).stem) > 1 else Path(name).stem


def member_progress(progress: Bar) -> Callable[[MemberReport], None]:
    """Show the epochs of all members as one bar, with the last loss and validation AUC."""
    done = 0

    def report(r: MemberReport) -> None:
        nonlocal done
        done += 1  # members report from several threads; a lost count only shortens the bar
        note = f"loss {r.epoch.loss:.3f}, validation AUC {r.epoch.validation_auc:.3f}"
        progress(done, r.members * r.epoch.epochs, note)

    return report


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError("unknown choice", expected=" or ".join(allowed), got=value, where=option)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as fault:
        raise UsageError(
            "not numbers", expected="0.5 or 0.49,0.48,0.44", got=text, where=option
        ) from fault


def _deliver(report: str, output: Path | None) -> None:
    if output is None:
        typer.echo(report, nl=False)
    else:
        write_atomically(output, report)
