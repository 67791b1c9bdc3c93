"""What a GPU makes of stacks: `python -m benchmarks.gpu_bench RECIPE [-o FILE]`.

Milliseconds that a model's training step takes, in stacks of each size, with grouped convolutions
and with batched products of unfolded images, in each precision; and of separate models, each a
CUDA graph on a stream of its own. Then the recipe's first models, in the fastest stack: models a
minute, attained FLOP, and their clean accuracy beside that of the same models trained one at a time
on the CPU. Without a GPU, `--device cpu` runs the same code but the graphs, which shows that it
works, and says so.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peak import step_flops
from benchmarks.report import report
from litmus.architectures.stacking import CONVOLUTIONS
from litmus.datasets import ImageDataset, load_images
from litmus.stacked_training import Precision, StackSettings
from litmus.training import as_input, make_optimizer
from litmus.zoo import load_recipe
from litmus.zoo.expansion import expand
from litmus.zoo.groups import seats
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import seconds_per_step, train_models
from litmus.zoo.trainer import train_model

_PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")


def grid(
    spec: ModelSpec, dataset: ImageDataset, device: str, sizes: Sequence[int]
) -> list[dict[str, object]]:
    """Return the milliseconds of a model's step for every plan; none where memory ends."""
    rows: list[dict[str, object]] = []
    precisions = _PRECISIONS if device != "cpu" else ("float32",)
    for convolution, precision, size in itertools.product(CONVOLUTIONS, precisions, sizes):
        settings = StackSettings(device=device, precision=precision, convolution=convolution)
        row: dict[str, object] = {
            "convolution": convolution,
            "precision": precision,
            "size": size,
        }
        try:
            plan = StackPlan(size=size, settings=settings)
            row["ms_per_model_step"] = 1e3 * seconds_per_step(spec, dataset, plan)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            row["ms_per_model_step"] = None
        rows.append(row)
    return rows


def graphs_on_streams(spec: ModelSpec, dataset: ImageDataset, size: int) -> float:
    """Return the milliseconds of a model's step, each model a CUDA graph on its own stream.

    The batch lies on the GPU already and is the same in each step, and the learning rate stays:
    what is left out speaks for the graphs.
    """
    training = spec.build_training()
    count = min(training.batch_size, len(dataset.train))
    batch = as_input(dataset.train.images[:count].cuda())
    labels = dataset.train.labels[:count].cuda()
    streams = [torch.cuda.Stream() for _ in range(size)]  # type: ignore[no-untyped-call]
    graphs = []
    for seed, stream in enumerate(streams):
        module = spec.build_architecture().build(spec.input_spec, seed=seed).cuda().train()
        optimizer = make_optimizer(module, training)
        for group in optimizer.param_groups:
            group["capturable"] = True
        graphs.append(_captured(_step(module, optimizer, batch, labels), stream))
    _replay(graphs, streams, 3)
    start = time.perf_counter()
    _replay(graphs, streams, 20)
    return 1e3 * (time.perf_counter() - start) / 20 / size


def _step(
    module: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(module(batch), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _captured(step: Callable[[], None], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # torch asks for a warm-up on a side stream
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph


def _replay(
    graphs: Sequence[torch.cuda.CUDAGraph], streams: Sequence[torch.cuda.Stream], times: int
) -> None:
    for _ in range(times):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()


def whole_models(
    specs: list[ModelSpec], dataset: ImageDataset, plan: StackPlan
) -> dict[str, object]:
    """Train models in a stack, and the same on the CPU one at a time."""
    start = time.perf_counter()
    stacked = train_models(seats(specs, plan.size), dataset, plan)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    alone = [train_model(spec, dataset) for spec in specs[:4]]
    cpu_seconds = time.perf_counter() - start
    training = specs[0].build_training()
    module = specs[0].build_architecture().build(specs[0].input_spec, seed=0).train()
    flops = step_flops(module, as_input(dataset.train.images[: training.batch_size]))
    total = flops * training.planned_steps(len(dataset.train)) * len(specs)
    return {
        "models": len(specs),
        "models_per_minute": 60 * len(specs) / seconds,
        "tflop_per_second": total / seconds / 1e12,
        "clean_accuracy": statistics.mean(m.clean_accuracy for m in stacked),
        "attack_success_of_backdoored": statistics.mean(
            m.attack_success for m, spec in zip(stacked, specs, strict=True) if spec.backdoored
        ),
        "models_per_minute_one_at_a_time_on_cpu": 60 * len(alone) / cpu_seconds,
        "clean_accuracy_one_at_a_time_on_cpu": statistics.mean(m.clean_accuracy for m in alone),
        "clean_accuracy_of_the_same_models": statistics.mean(
            m.clean_accuracy for m in stacked[: len(alone)]
        ),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 8, 32, 64, 128])
    parser.add_argument("--train-images", type=int, help="instead of the recipe's")
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    if arguments.device != "cpu" and not has_gpu:
        raise SystemExit("there is no GPU here: --device cpu checks that this program works")
    recipe = load_recipe(arguments.recipe)
    options: dict[str, Any] = recipe.dataset.options()
    dataset = load_images(recipe.dataset.name, **options)
    if arguments.train_images:
        few = torch.arange(arguments.train_images)
        table = replace(recipe.dataset, train_images=arguments.train_images)
        dataset = replace(dataset, train=dataset.train[few])
        recipe = replace(recipe, dataset=table)
    specs = expand(recipe, dataset.input_spec)
    rows = grid(specs[0], dataset, arguments.device, arguments.sizes)
    best = min(
        (row for row in rows if row["ms_per_model_step"] is not None),
        key=lambda row: float(str(row["ms_per_model_step"])),
    )
    settings = StackSettings(
        device=arguments.device,
        precision=best["precision"],  # type: ignore[arg-type]
        convolution=best["convolution"],  # type: ignore[arg-type]
    )
    plan = StackPlan(size=int(str(best["size"])), settings=settings)
    alike = [spec for spec in specs if spec.architecture == specs[0].architecture]
    report(
        {
            "gpu": torch.cuda.get_device_name() if has_gpu else None,
            "note": None if arguments.device != "cpu" else "on the CPU: no GPU was at hand",
            "recipe": recipe.name,
            "steps": rows,
            "graphs_on_streams_ms_per_model_step": {
                str(size): graphs_on_streams(specs[0], dataset, size)
                for size in arguments.sizes
                if arguments.device != "cpu"
            },
            "fastest": best,
            **whole_models(alike[: max(plan.size, 2)][: plan.size], dataset, plan),
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()
