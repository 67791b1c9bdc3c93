"""The verb that shows the whole of Litmus on embedded data."""

from __future__ import annotations

import os
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litmus.artifacts import write_atomically
from litmus.cli.detecting import member_progress
from litmus.cli.options import Workers
from litmus.cli.progress import bar

if TYPE_CHECKING:
    from litmus.detectors.patterns import ULPDetector
    from litmus.evaluation import Evaluation
    from litmus.scanning import ScanResult
    from litmus.zoo import Recipe, Zoo

__all__ = ["demo"]

_SCALE = 0.26
"""Of the recipe: 38 twins to fit on, 24 to test on."""


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to.")] = Path(
        "demo"
    ),
    workers: Workers = None,
    scale: Annotated[float, typer.Option(help="How much of the recipe's zoo to train.")] = _SCALE,
) -> None:
    """Build a zoo on embedded digits, fit a detector, evaluate it, scan two models: minutes."""
    from litmus.detectors import fit
    from litmus.evaluation import evaluate
    from litmus.reports.demo import DemoResult, demo_html
    from litmus.zoo import load_recipe

    start = time.monotonic()
    recipe = load_recipe(Path(str(resources.files("litmus"))) / "recipes" / "digits.toml")
    zoo = _build(recipe, output / "zoo", workers or os.cpu_count() or 1, scale)
    typer.echo("2. Fitting litmus patterns and head: five members, each without a fifth of them")
    with bar("fitting") as progress:
        detector: ULPDetector = fit(zoo, "ulp", on_progress=member_progress(progress))  # type: ignore[assignment]
    file = output / "digits.litmus"
    write_atomically(file, detector.to_bytes())
    typer.echo("3. Evaluating on models with triggers that the detector was never fitted on")
    # A zoo of a small --scale calibrates with so few models that 5 % can't be promised.
    fpr = max(0.05, detector.calibration.smallest_p_value)
    evaluation = evaluate(zoo, {"ulp": detector}, fpr=fpr)
    typer.echo("4. Exporting one clean and one backdoored model to ONNX, and scanning the files")
    results = _scan(zoo, file, output, fpr)
    page = output / "index.html"
    result = DemoResult(
        recipe=recipe.name,
        seconds=time.monotonic() - start,
        zoo=zoo,
        detector=detector,
        row=evaluation.headline("ulp"),
        results=results,
        pictures=_pictures(recipe, detector, evaluation),
    )
    write_atomically(page, demo_html(result))
    row = result.row
    typer.echo(
        f"AUC {row.auc:.2f} ({row.auc_low:.2f} to {row.auc_high:.2f}) on {row.n_clean} clean + "
        f"{row.n_backdoored} backdoored models, page {page}"
    )


def _build(recipe: Recipe, folder: Path, workers: int, scale: float) -> Zoo:
    from litmus.zoo import Zoo, build

    typer.echo(f"1. Training clean and backdoored networks on {recipe.dataset.name}, in {folder}")
    with bar("training models") as progress:
        for event in build(recipe, folder, workers=workers, scale=scale):
            progress(event.done, event.total)
    return Zoo.open(folder).first(scale)


def _scan(zoo: Zoo, detector: Path, output: Path, fpr: float) -> list[ScanResult]:
    from litmus.formats import zoo_file
    from litmus.formats.onnx_export import export_onnx
    from litmus.scanning import Failed, Scored, scan

    entries = zoo.split("test")
    paths = []
    for name, wanted in (("clean", False), ("backdoored", True)):
        entry = next(e for e in entries if e.backdoored is wanted)
        paths.append(output / f"{name}.onnx")
        export_onnx(zoo_file.load(entry.path), entry.spec.input_spec, paths[-1])
    results = list(scan(paths, detector=detector, fpr=fpr))
    for result in results:
        if isinstance(result, Scored):
            typer.echo(f"   {result.path}: {result.verdict}, p = {result.p_value:.3f}")
        else:
            typer.echo(
                f"   {result.path}: {result.error if isinstance(result, Failed) else result.reason}"
            )
    return results


def _pictures(recipe: Recipe, detector: ULPDetector, evaluation: Evaluation) -> dict[str, str]:
    from litmus.figures import image_grid, labelled_images, patterns_by_member, roc_curves
    from litmus.zoo.pictures import poisoned_examples, trigger_pictures

    return {
        "triggers": labelled_images(trigger_pictures(recipe)),
        "poisoned": image_grid(poisoned_examples(recipe)),
        "patterns": patterns_by_member([member.patterns for member in detector.members]),
        "roc": roc_curves(evaluation.curves, "unseen triggers"),
    }
