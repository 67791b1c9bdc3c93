"""What the trigger search costs: `python -m benchmarks.search_bench`, on one thread.

For every architecture the time of a gradient in onnxruntime beside PyTorch's, in turn on the same
images; and the search at standard effort on the exported LeNet-5 and ResNet-20, with random
weights: a search takes the same steps whatever the weights are.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import report
from litmus.architectures import ARCHITECTURES
from litmus.formats import onnx_file
from litmus.formats.onnx_export import export_onnx
from litmus.formats.torch_gradients import TorchGradients
from litmus.inversion.forms import forms_for
from litmus.inversion.search import SearchSettings, make_bank, pair_count, search_form
from litmus.models import Gradients, InputSpec

_COLOUR = InputSpec(channels=3, height=32, width=32, num_classes=10)
_GREY = InputSpec(channels=1, height=28, width=28, num_classes=10)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for name in ARCHITECTURES:
        rows[name] = gradient_row(name, arguments.images, arguments.rounds)
    searches = {
        "lenet5, 1x28x28": search_row("lenet5", {}, _GREY),
        "resnet-20, 3x32x32": search_row("resnet", {"width": 16, "blocks": 3}, _COLOUR),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"gradients": rows, "searches": searches, "peak_mib": round(peak)}
    report(figures, arguments.output)


def exported(name: str, options: dict[str, Any], spec: InputSpec) -> tuple[Gradients, Gradients]:
    """Return a network's gradients in onnxruntime and in PyTorch."""
    module = ARCHITECTURES[name](**options).build(spec, seed=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        export_onnx(module, spec, path)
        return onnx_file.load(path).gradients(), TorchGradients(module, spec)


def gradient_row(name: str, images: int, rounds: int) -> dict[str, float]:
    """Return milliseconds a batch of both, the medians of several rounds, and their ratio."""
    spec = _GREY if name in ("lenet5", "badnets_cnn") else _COLOUR
    both = exported(name, {}, spec)
    batch = np.random.default_rng(0).random((images, *spec.image_shape)).astype(np.float32)
    targets = np.arange(images) % spec.num_classes
    taken: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for which, gradients in enumerate(both):
            seconds = timed(lambda own=gradients: own.descend(batch, targets))  # type: ignore[misc]
            if turn:
                taken[which].append(1000 * seconds)
    own, theirs = (float(np.median(each)) for each in taken)
    return {
        "onnxruntime_ms": round(own, 1),
        "pytorch_ms": round(theirs, 1),
        "speed": round(theirs / own, 2),
    }


def image_passes(spec: InputSpec, settings: SearchSettings) -> int:
    """Return how many images a search asks for; all but those of dots go backward, too."""
    k, total = spec.num_classes, 0
    for form in forms_for(*spec.image_shape):
        places = len(form.places)
        if form.kind == "dot":
            total += k * settings.dot_images * places * len(form.colours)
        else:
            total += settings.image_passes(pair_count(k, settings) * places)
    return total


def search_row(name: str, options: dict[str, Any], spec: InputSpec) -> dict[str, float]:
    """Return the seconds of a search in onnxruntime, and the images that went through."""
    gradients, _ = exported(name, options, spec)
    random = np.random.default_rng(0)
    images = [random.random((3, *spec.image_shape)).astype(np.float32) for _ in range(10)]
    settings, forms = SearchSettings(), forms_for(*spec.image_shape)
    passes = image_passes(spec, settings)

    def search() -> None:
        bank = make_bank(gradients, images, images, settings)
        for form in forms:
            search_form(gradients, bank, form, settings)

    seconds = timed(search)
    return {"seconds": round(seconds, 1), "images": passes}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
