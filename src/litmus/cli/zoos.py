"""Verbs on zoos: build, list, verify, init; export a model; draw a recipe's triggers."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from litmus.artifacts import write_atomically
from litmus.cli.options import Data, Workers, ZooFolder, choice
from litmus.cli.progress import bar

if TYPE_CHECKING:
    from litmus.stacked_training import Precision
    from litmus.zoo import ZooEntry
    from litmus.zoo.engines import Engine

app = typer.Typer(
    help="Build and inspect zoos of clean and backdoored models.", no_args_is_help=True
)

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="What to train.")]
EngineName = Annotated[str, typer.Option("--engine", help="local (processes) or ray (a cluster).")]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster's ($RAY_ADDRESS does too; default: one on this machine)."),
]


@app.command()
def build(
    recipe: Recipe,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Where to; or s3://BUCKET/ZOO.")
    ],
    workers: Workers = None,
    scale: Annotated[float, typer.Option(help="Train the first part of the recipe only.")] = 1.0,
    data: Data = None,
    engine: EngineName = "local",
    address: Address = None,
    gpus_per_task: Annotated[
        float, typer.Option(help="The share of a GPU that a Ray task takes.")
    ] = 0.0,
    stack: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N",
            help="Train N models of one kind as one network; auto measures which N is fastest "
            "(default: as the zoo was begun; a new one: 1, on a GPU auto).",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N (default: as begun; a new one: cpu).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="A GPU's: float32 (default), tf32 or bf16.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="ZOO", help="Where the models are that the recipe's start from."),
    ] = None,
) -> None:
    """Train the models that DIR lacks. Can be stopped and started again at any moment."""
    from litmus.zoo import build, load_recipe

    counts = {"accepted": 0, "rejected": 0, "given_up": 0}
    cpu_seconds = 0.0
    nodes: set[str] = set()
    loaded = load_recipe(recipe)
    events = build(
        replace(loaded, ancestors_in=start_from) if start_from else loaded,
        output,
        workers=workers,
        engine=_engine(engine, address, gpus_per_task),
        scale=scale,
        data=data,
        stack=_stack_size(stack),
        device=device,
        precision=cast("Precision | None", precision),  # checked by `build`
    )
    with bar("training models") as progress, contextlib.closing(events):
        try:
            for event in events:
                nodes |= {event.node} - {""}
                note = f"on {len(nodes)} nodes" if len(nodes) > 1 else ""
                progress(event.done, event.total, note)
                if event.kind == "found":
                    start, total = event.done, event.total
                    continue
                counts[event.kind] += 1
                cpu_seconds += event.cpu_seconds
                if event.kind != "accepted":
                    progress.say(f"{event.model_id} {event.kind}: {event.detail}")
        except KeyboardInterrupt:
            typer.echo(
                f"stopped: {counts['accepted']} models trained now; the same command goes on",
                err=True,
            )
            raise
    trained = sum(counts.values())
    typer.echo(
        f"{output}: {total} models asked for, {start} were there, {counts['accepted']} accepted, "
        f"{counts['rejected'] + counts['given_up']} rejected"
        + (f", {cpu_seconds / trained:.1f} CPU-seconds a model" if trained else "")
    )
    if counts["given_up"]:
        typer.echo(f"{counts['given_up']} were given up: see *.rejected.json there", err=True)


@app.command()
def plan(
    recipe: Recipe,
    scale: Annotated[float, typer.Option(help="Plan the first part of the recipe only.")] = 1.0,
    workers: Workers = None,
    gflops: Annotated[
        float | None,
        typer.Option(help="What each worker attains in a plain convolution (default: as here)."),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="[[nodes]] with count, workers and gflops."),
    ] = None,
    acceptance: Annotated[
        float | None, typer.Option(help="The share of attempts that pass their gate (default: 1).")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="ZOO", help="Take that share from a zoo, begun or done.")
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    format_: Annotated[str, typer.Option("-f", "--format", help="text or json.")] = "text",
    data: Data = None,
) -> None:
    """Foretell a zoo's hours, memory and disk, from a few steps of some of its networks.

    For this machine, for the nodes that a Ray cluster has now, or for those that a file describes.
    """
    from litmus.errors import UsageError
    from litmus.reports.zoo import plan_as_json, plan_text
    from litmus.zoo import load_recipe
    from litmus.zoo.plan import acceptance_of, load_cluster, plan_zoo

    choice("--format", format_, ("text", "json"))
    if cluster and (workers or gflops):
        raise UsageError("--cluster says how many workers there are", got="--workers or --gflops")
    if cluster and (engine != "local" or address):
        raise UsageError("two clusters", expected="--cluster or --engine")
    if workers and engine != "local":
        raise UsageError("the cluster says how many workers there are", got="--workers")
    if acceptance is not None and like:
        raise UsageError("two sources of the acceptance", expected="--acceptance or --like")
    if workers is not None and workers < 1:
        raise UsageError("--workers is impossible", expected="at least 1", got=workers)
    if gflops is not None and not gflops > 0:
        raise UsageError("--gflops is impossible", expected="above 0", got=gflops)
    machines = (
        load_cluster(cluster)
        if cluster
        else tuple(
            replace(nodes, workers=workers or nodes.workers, gflops=gflops)
            for nodes in _engine(engine, address, 0.0).machines()
        )
    )
    if like:
        acceptance = acceptance_of(like)
    planned = plan_zoo(
        load_recipe(recipe),
        scale=scale,
        acceptance=1.0 if acceptance is None else acceptance,
        data=data,
    )
    if format_ == "json":
        typer.echo(json.dumps(plan_as_json(planned, machines)))
    else:
        typer.echo(plan_text(planned, machines), nl=False)


@app.command("list")
def list_models(
    folder: ZooFolder,
    format_: Annotated[str, typer.Option("-f", "--format", help="text or json.")] = "text",
) -> None:
    """List a zoo's accepted models, read from their headers."""
    from litmus.errors import UsageError
    from litmus.reports.zoo import zoo_table
    from litmus.zoo import Zoo

    zoo = Zoo.open(folder)
    if format_ == "json":
        for entry in zoo.entries:
            typer.echo(json.dumps(_as_json(entry)))
    elif format_ == "text":
        typer.echo(zoo_table(zoo), nl=False)
    else:
        raise UsageError("unknown --format", expected="text or json", got=format_)


@app.command()
def verify(
    folder: ZooFolder,
    remeasure: Annotated[
        int, typer.Option(help="Measure so many models' accuracy again; needs the images.")
    ] = 0,
    retrain: Annotated[
        int, typer.Option(help="Train so many again and compare bytes; needs the images.")
    ] = 0,
    data: Data = None,
) -> None:
    """Check that every file is whole and tells the truth; exit code 2 where one is not."""
    from litmus.zoo.verify import verify

    checked = bad = 0
    for finding in verify(folder, remeasure=remeasure, retrain=retrain, data=data):
        checked += 1
        if finding.problem:
            bad += 1
            typer.echo(finding.problem, err=True)
    typer.echo(f"{folder}: {checked} models checked, {bad} damaged or untrue")
    if bad:
        raise typer.Exit(2)


@app.command()
def init(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="One folder a class.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe to write.")] = Path(
        "recipe.toml"
    ),
    name: Annotated[str, typer.Option(help="A name for the zoo.")] = "mine",
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 32,
    channels: Annotated[int, typer.Option(help="1 (grey) or 3 (colour).")] = 3,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
) -> None:
    """Write a recipe for your own images."""
    from litmus.errors import UsageError
    from litmus.zoo.starter import starter_recipe

    if output.exists() and not force:
        raise UsageError("there is such a file already", expected="--force", where=output)
    text = starter_recipe(data, name=name, image_size=image_size, channels=channels)
    write_atomically(output, text)
    typer.echo(f"wrote {output}; next: litmus zoo build {output} -o zoo/ --data {data}")


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A zoo file.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.onnx", help="Where to.")],
    softmax: Annotated[bool, typer.Option("--softmax", help="End in probabilities.")] = False,
) -> None:
    """Write a zoo model as ONNX."""
    from litmus.formats import zoo_file
    from litmus.formats.onnx_export import export_onnx

    loaded = zoo_file.load(model)
    export_onnx(loaded, loaded.input_spec, output, softmax=softmax)
    typer.echo(f"wrote {output}")


def figures(
    recipe: Recipe,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to.")],
    data: Data = None,
) -> None:
    """Draw a recipe's triggers and examples of poisoned images (paper, Figures 2 and 3)."""
    from litmus.figures import image_grid, labelled_images
    from litmus.zoo import load_recipe
    from litmus.zoo.pictures import poisoned_examples, trigger_pictures

    parsed = load_recipe(recipe)
    drawn = {"poisoned.svg": image_grid(poisoned_examples(parsed, data=data))}
    if triggers := trigger_pictures(parsed):
        drawn = {"triggers.svg": labelled_images(triggers), **drawn}
    for name, picture in drawn.items():
        write_atomically(output / name, picture)
    typer.echo(f"wrote {' and '.join(str(output / name) for name in drawn)}")


def _engine(name: str, address: str | None, gpus_per_task: float) -> Engine:
    from litmus.errors import UsageError
    from litmus.zoo.engines import ENGINES

    choice("--engine", name, tuple(ENGINES))
    options: dict[str, object] = {}
    if address is not None:
        options["address"] = address
    if gpus_per_task:
        options["gpus_per_task"] = gpus_per_task
    try:
        return ENGINES[name](**options)
    except TypeError as fault:
        given = " and ".join(f"--{option.replace('_', '-')}" for option in options)
        raise UsageError(f"the engine {name} has no {given}", expected="--engine ray") from fault


def _stack_size(text: str | None) -> int | Literal["auto"] | None:
    from litmus.errors import UsageError

    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as fault:
        raise UsageError("no such size", expected="auto or N", got=text, where="--stack") from fault


def _as_json(entry: ZooEntry) -> dict[str, object]:
    return {
        "id": entry.id,
        "split": entry.spec.split,
        "treatment": entry.spec.treatment,
        "architecture": entry.architecture,
        "attack": entry.attack,
        "trigger": entry.trigger_id,
        "twin": entry.spec.twin,
        "steps": entry.steps,
        "clean_accuracy": entry.clean_accuracy,
        "attack_success": entry.attack_success,
    }
