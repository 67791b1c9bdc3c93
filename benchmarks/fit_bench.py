"""Seconds and memory of a fit: `python -m benchmarks.fit_bench [ZOO] --models 250`.

One member, 10 patterns and 60 epochs by default: the work of a detector that is fitted on that
many models. Without a zoo they are networks of `--recipe` (the paper's for MNIST) with random
weights, which take as long. Beside it stands a textbook loop over the same models, which reads each
checkpoint and takes a step on it alone, measured for `--textbook-epochs`. `--memory-models` are the
sizes of zoos with random weights that are fitted on in processes of their own, streamed, for their
memory. `stacks` are the milliseconds of a model's answers and gradients for some architectures, as
stacks of 16 and one by one, beside the floating-point operations for one image, by which a fit on a
CPU decides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peak import convolution_peak, step_flops
from benchmarks.random_zoo import random_zoo
from benchmarks.report import report
from litmus.fitting import PatternSettings, sources
from litmus.fitting.learn import learn, total_variation
from litmus.fitting.population import Population, canonical
from litmus.formats import zoo_file
from litmus.models import InputSpec
from litmus.zoo import Zoo, ZooEntry
from litmus.zoo.recipe import load_recipe, parse_recipe

_STACKS: list[dict[str, object]] = [
    {"name": "resnet", "width": 8, "blocks": 1, "stem_stride": 2},
    {"name": "vgg", "width": 8, "stem_stride": 2},
    {"name": "lenet5"},
    {"name": "cnn", "channels": [8, 16]},
    {"name": "vgg", "width": 16, "stem_stride": 2},
    {"name": "cnn", "channels": [32, 64]},
]
_MNIST = InputSpec(channels=1, height=28, width=28, num_classes=10)
_SMALL = {
    "name": "random",
    "twins": 1000,
    "dataset": {"name": "digits"},
    "architecture": {"name": "vgg", "width": 8, "stem_stride": 2},
    "attack": {"name": "patch", "label_map": "untargeted"},
    "triggers": {"binary": 4, "train": 2, "test": 2},
}


def textbook_epoch(entries: Sequence[ZooEntry], patterns: torch.Tensor, weight: float) -> None:
    """Step on each model by itself: read it, ask it, and move patterns and head."""
    classes = entries[0].spec.input_spec.num_classes
    head = torch.nn.Linear(len(patterns) * classes, 2)
    patterns.requires_grad_()
    optimizer = torch.optim.Adam([patterns, *head.parameters()], lr=0.01)
    for place in torch.randperm(len(entries)).tolist():
        module = zoo_file.load(entries[place].path).torch_module().eval()
        logits = head(module(patterns).flatten()[None])
        target = torch.tensor([int(entries[place].backdoored)])
        loss = F.cross_entropy(logits, target) + weight * total_variation(patterns)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            patterns.clamp_(0, 1)


def streamed_memory(models: int) -> dict[str, float]:
    """Fit on so many streamed models with random weights; return peak MiB before and after."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(parse_recipe(_SMALL, "random"), twins=models // 2)
        entries = random_zoo(recipe, _MNIST, Path(folder)).entries
        before = peak_memory()
        population = Population.load(entries, memory=0)
        tenth = models // 10
        learn(
            population.subset(np.arange(tenth, models)),
            population.subset(np.arange(tenth)),
            _MNIST,
            PatternSettings(epochs=2),
            seed=0,
        )
    return {"models": models, "start_mib": before, "peak_mib": peak_memory()}


def stack_figures(architecture: dict[str, object], patterns: int) -> dict[str, object]:
    """Ask 32 networks for answers and gradients, in stacks and one by one."""
    recipe = replace(parse_recipe({**_SMALL, "architecture": architecture}, "random"), twins=16)
    found: dict[str, object] = {"architecture": architecture}
    with tempfile.TemporaryDirectory() as folder:
        entries = random_zoo(recipe, _MNIST, Path(folder)).entries
        network = entries[0].spec.build_architecture().build(_MNIST, seed=0).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *_MNIST.image_shape))
        found["flops_per_image"] = counter.get_total_flops()
        for name, small in (("stacked", 10**12), ("one_by_one", 0)):
            with mock.patch.object(sources, "_SMALL", small):
                found[f"{name}_ms_per_model"] = asked_ms(Population.load(entries), patterns)
    return found


def asked_ms(population: Population, patterns: int) -> float:
    """Return the least CPU-milliseconds of a model in five rounds; another one warms up."""
    images = torch.rand(patterns, *_MNIST.image_shape, requires_grad=True)
    taken = []
    for _ in range(6):
        start = time.process_time()
        answers = population.answers(images, range(len(population)), canonical)
        torch.autograd.backward(answers.square().sum())
        taken.append(1e3 * (time.process_time() - start) / len(population))
    return min(taken[1:])


def peak_memory() -> float:
    """Return this process's peak resident memory in MiB (Linux).

    `getrusage` would also count what the process that started this one held.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path, nargs="?")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/paper/mnist.toml"))
    parser.add_argument("--models", type=int, default=250)
    parser.add_argument("--validation", type=int, default=30)
    parser.add_argument("--patterns", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--textbook-epochs", type=int, default=2)
    parser.add_argument("--memory-models", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only_memory:
        print(json.dumps(streamed_memory(arguments.only_memory)))
        return
    if arguments.zoo is not None:
        figures = measured(Zoo.open(arguments.zoo), arguments)
    else:
        wanted = -(-(arguments.models + arguments.validation) // 2)
        recipe = replace(load_recipe(arguments.recipe), twins=wanted, test_share=0.0)
        with tempfile.TemporaryDirectory() as folder:
            figures = measured(random_zoo(recipe, _MNIST, Path(folder)), arguments)
    memory = [memory_of(models) for models in arguments.memory_models]
    stacks = [stack_figures(options, arguments.patterns) for options in _STACKS]
    report({**figures, "streamed_memory": memory, "stacks": stacks}, arguments.output)


def measured(zoo: Zoo, arguments: argparse.Namespace) -> dict[str, object]:
    """Fit on a zoo's first models, in both ways."""
    entries = zoo.entries[: arguments.models + arguments.validation]
    if len(entries) < arguments.models + arguments.validation:
        raise SystemExit(f"the zoo has only {len(entries)} models")
    figures = fit_figures(entries, arguments)
    figures |= textbook_figures(entries[: arguments.models], arguments)
    ratio = figures["textbook_ms_per_model_pattern_epoch"] / figures["ms_per_model_pattern_epoch"]
    return {"recipe": zoo.recipe["name"], **figures, "textbook_ratio": ratio}


def fit_figures(entries: Sequence[ZooEntry], arguments: argparse.Namespace) -> dict[str, float]:
    """Fit one member and say what it took."""
    start = time.perf_counter()
    population = Population.load(entries)
    load_seconds = time.perf_counter() - start

    def fit_member(epochs: int) -> None:
        learn(
            population.subset(np.arange(arguments.models)),
            population.subset(np.arange(arguments.models, len(entries))),
            entries[0].spec.input_spec,
            PatternSettings(num_patterns=arguments.patterns, epochs=epochs),
            seed=0,
        )

    fit_member(1)  # an optimiser's first step imports a third of PyTorch
    start, cpu = time.perf_counter(), time.process_time()
    fit_member(arguments.epochs)
    fitted, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak_mib = peak_memory()
    steps = arguments.models * arguments.epochs
    patterns = torch.rand(arguments.patterns, *entries[0].spec.input_spec.image_shape)
    # Of models that are asked alike; the validation models' forward passes are left out.
    each = [e.spec.build_architecture().build(e.spec.input_spec, seed=0).eval() for e in entries]
    flops = sum(step_flops(m, patterns.clone(), weights=False) for m in each[: arguments.models])
    peak = convolution_peak()
    return {
        "models": arguments.models,
        "num_patterns": arguments.patterns,
        "epochs": arguments.epochs,
        "threads": arguments.threads,
        "load_seconds": load_seconds,
        "fit_seconds": fitted,
        "ms_per_model_and_epoch": 1e3 * fitted / steps,
        "ms_per_model_pattern_epoch": 1e3 * cpu / steps / arguments.patterns,
        "gflop_per_cpu_second": flops * arguments.epochs / cpu / 1e9,
        "peak_gflop_per_cpu_second": peak / 1e9,
        "share_of_peak": flops * arguments.epochs / cpu / peak,
        "peak_memory_mib": peak_mib,
    }


def textbook_figures(
    entries: Sequence[ZooEntry], arguments: argparse.Namespace
) -> dict[str, float]:
    """Run the textbook loop for a few epochs and say what an epoch takes in CPU-seconds."""
    patterns = torch.rand(arguments.patterns, *entries[0].spec.input_spec.image_shape)
    cpu = time.process_time()
    for _ in range(arguments.textbook_epochs):
        textbook_epoch(entries, patterns, PatternSettings().tv_weight)
    steps = len(entries) * arguments.textbook_epochs * arguments.patterns
    taken = 1e3 * (time.process_time() - cpu) / steps
    return {
        "textbook_epochs": arguments.textbook_epochs,
        "textbook_ms_per_model_pattern_epoch": taken,
    }


def memory_of(models: int) -> dict[str, float]:
    """Measure `streamed_memory` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fit_bench", "--only-memory", str(models)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(answer)
    return figures


if __name__ == "__main__":
    main()
