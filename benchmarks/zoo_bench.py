"""What zoo models cost: `python -m benchmarks.zoo_bench`.

Models a minute with one worker and with two, in turn. With `--data-recipe RECIPE`, also the
CPU-seconds of a model of that recipe that reaches `--accuracy`, rejected ones included, beside a
textbook training of `--textbook-epochs` epochs: Adam and a DataLoader on the same images, on a VGG
of `--textbook-width`, measured for `--textbook-steps` steps and scaled; and the CPU-seconds of a
step in stacks of each size, and under vmap.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.data import DataLoader, Dataset

from benchmarks.peak import convolution_peak, step_flops
from benchmarks.report import report
from litmus.architectures.vgg import VGG
from litmus.datasets import ImageDataset, Split, load_images
from litmus.training import as_input
from litmus.zoo import build, load_recipe
from litmus.zoo.expansion import expand
from litmus.zoo.spec import ModelSpec
from litmus.zoo.stack_plan import StackPlan
from litmus.zoo.stacks import seconds_per_step
from litmus.zoo.trainer import train_model


def rate(recipe: Path, workers: int, models: int) -> float:
    """Return models a second, from the first accepted model on (start-up left out)."""
    parsed = load_recipe(recipe)
    with tempfile.TemporaryDirectory() as folder:
        scale = models / (2 * parsed.twins)
        done: list[float] = []
        for event in build(parsed, folder, workers=workers, scale=scale):
            if event.kind == "accepted":
                done.append(time.perf_counter())
    # The first `workers` models include the workers' start.
    return (len(done) - workers) / (done[-1] - done[workers - 1])


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Images as tutorials have them: scaled and normalised one by one."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        """Return an image (c, h, w) in [-1, 1] and its label."""
        return (self._split.images[place].float() / 255 - 0.5) / 0.5, self._labels[place]


def textbook_cpu_seconds(dataset: ImageDataset, *, width: int, epochs: int, steps: int) -> float:
    """Return what a textbook training would take, from its first steps (one more warms up)."""
    module = VGG(width=width).build(dataset.input_spec, seed=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    loader = DataLoader(Images(dataset.train), batch_size=64, shuffle=True, drop_last=True)
    start = 0.0
    for step, (images, labels) in enumerate(loader):
        if step == 1:
            start = time.process_time()
        if step == steps + 1:
            break
        loss = F.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (time.process_time() - start) / steps * len(loader) * epochs


def accepted_cost(specs: list[ModelSpec], dataset: ImageDataset, peak: float) -> dict[str, float]:
    """Train models and return the CPU-seconds of an accepted one, with its share of the peak."""
    accuracies, accepted, flops = [], 0, 0
    start = time.process_time()
    trained = [train_model(spec, dataset) for spec in specs]
    cpu = time.process_time() - start
    for spec, model in zip(specs, trained, strict=True):
        training = spec.build_training()
        module = spec.build_architecture().build(spec.input_spec, seed=0).train()
        batch = as_input(dataset.train.images[: training.batch_size])
        flops += step_flops(module, batch) * training.planned_steps(len(dataset.train))
        accuracies.append(model.clean_accuracy)
        accepted += model.rejection is None
    return {
        "trained": len(specs),
        "accepted": accepted,
        "mean_clean_accuracy": statistics.mean(accuracies),
        "cpu_seconds_per_accepted_model": cpu / accepted if accepted else float("inf"),
        "gflop_per_model": flops / len(specs) / 1e9,
        "share_of_peak": flops / cpu / peak,
    }


def vmap_seconds_per_step(spec: ModelSpec, dataset: ImageDataset, size: int) -> float:
    """Return the CPU-seconds of a model's forward and backward pass under vmap.

    BatchNorm takes its moments from the batch and keeps no average, which vmap can't; nothing is
    updated: what is left out speaks for vmap.
    """
    architecture = spec.build_architecture()
    modules = [architecture.build(spec.input_spec, seed=seed) for seed in range(size)]
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    parameters, buffers = stack_module_state(modules)
    batch = as_input(dataset.train.images[: spec.build_training().batch_size])
    labels = dataset.train.labels[: len(batch)]

    def loss(own: dict[str, torch.Tensor], kept: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(functional_call(modules[0], (own, kept), (batch,)), labels)

    step = vmap(grad(loss))
    step(parameters, buffers)
    start = time.process_time()
    for _ in range(3):
        step(parameters, buffers)
    return (time.process_time() - start) / 3 / size


def cost_figures(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what `--data-recipe` asks for."""
    torch.set_num_threads(1)
    recipe = load_recipe(arguments.data_recipe)
    options: dict[str, Any] = recipe.dataset.options()
    dataset = load_images(recipe.dataset.name, **options)
    gates = replace(recipe.gates, clean_accuracy=arguments.accuracy)
    scale = arguments.cost_models / (2 * recipe.twins)
    specs = expand(replace(recipe, gates=gates), dataset.input_spec, scale=scale)
    if arguments.epochs:
        changed = {"epochs": arguments.epochs}
        specs = [replace(spec, training={**spec.training, **changed}) for spec in specs]
    peak = convolution_peak()
    cost = accepted_cost(specs, dataset, peak)
    textbook = textbook_cpu_seconds(
        dataset,
        width=arguments.textbook_width,
        epochs=arguments.textbook_epochs,
        steps=arguments.textbook_steps,
    )
    sizes = {
        str(size): 1e3 * seconds_per_step(specs[0], dataset, StackPlan(size=size))
        for size in (1, 2, 4, 8)
    }
    return {
        "cost_recipe": recipe.name,
        "training": asdict(specs[0].build_training()),
        "accuracy": arguments.accuracy,
        **cost,
        "peak_gflop_per_cpu_second": peak / 1e9,
        "textbook_width": arguments.textbook_width,
        "textbook_epochs": arguments.textbook_epochs,
        "textbook_cpu_seconds": textbook,
        "textbook_ratio": textbook / cost["cpu_seconds_per_accepted_model"],
        "stacked_cpu_ms_per_model_step": sizes,
        "vmap_of_8_cpu_ms_per_model_step": 1e3 * vmap_seconds_per_step(specs[0], dataset, 8),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    digits = Path(str(resources.files("litmus"))) / "recipes" / "digits.toml"
    parser.add_argument("--recipe", type=Path, default=digits)
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data-recipe", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.795)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--cost-models", type=int, default=8)
    parser.add_argument("--textbook-width", type=int, default=32)
    parser.add_argument("--textbook-epochs", type=int, default=50)
    parser.add_argument("--textbook-steps", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    rounds = [
        [rate(arguments.recipe, workers, arguments.models) for workers in (1, 2)]
        for _ in range(arguments.rounds)
    ]
    report(
        {
            "recipe": load_recipe(arguments.recipe).name,
            "models": arguments.models,
            "models_per_minute_1_worker": [60 * one for one, _ in rounds],
            "models_per_minute_2_workers": [60 * two for _, two in rounds],
            "median_ratio": statistics.median(two / one for one, two in rounds),
            **(cost_figures(arguments) if arguments.data_recipe else {}),
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()
