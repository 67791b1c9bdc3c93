"""Networks for other classes than a data set's, of its shape: what reference images must refuse.

    python -m benchmarks.other_classes mnist -o DIR [--images 8000] [--epochs 2]

Writes ONNX files. Their classes are, in turn: those of the two other data sets (resized, in grey
or in colour, each class times as many turns as are needed), and where an image, shrunk to half its
size, has been put. Three small networks each, and one of each that was not trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F

from litmus.architectures import Architecture
from litmus.architectures.cnn import CNN
from litmus.architectures.lenet import LeNet5
from litmus.architectures.resnet import ResNet
from litmus.datasets import Split, load_images
from litmus.formats.onnx_export import export_onnx
from litmus.models import InputSpec
from litmus.seeds import torch_generator
from litmus.training import TrainingSpec, predict, train

DATA: Final = ("mnist", "cifar10", "gtsrb")
NETWORKS: Final[dict[str, Architecture]] = {
    "cnn": CNN(channels=(16, 32), hidden=64),
    "lenet5": LeNet5(),
    "resnet": ResNet(width=8, blocks=1, stem_stride=2),
}
"""As the jumbo zoos have them."""


def main() -> None:
    """Train and export, and print each network's accuracy on the images that it learned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=DATA)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_images(arguments.dataset).input_spec
    training = TrainingSpec(epochs=arguments.epochs, batch_size=64, peak_learning_rate=0.003)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, network in NETWORKS.items():
        export_onnx(network.build(spec, seed=0), spec, arguments.output / f"untrained-{name}.onnx")
    for task, data in tasks(arguments.dataset, spec, arguments.images):
        for name, network in NETWORKS.items():
            module = network.build(spec, seed=0)
            train(module, data, training, seed=0)
            right = (predict(module, data.images) == data.labels).float().mean()
            export_onnx(module, spec, arguments.output / f"{task}-{name}.onnx")
            print(f"{task}-{name}: {len(data)} images, accuracy {right:.3f}", flush=True)


def tasks(dataset: str, spec: InputSpec, count: int) -> Iterator[tuple[str, Split]]:
    """Yield the other classes by name, each with images of the shape."""
    for name in DATA:
        if name != dataset:
            yield name, foreign(load_images(name).train, spec, count)
    yield "place", places(load_images(dataset).train, spec, count)


def foreign(data: Split, spec: InputSpec, count: int) -> Split:
    """Other images; where they have too few classes, each one upright and turned is several."""
    turns = -(-spec.num_classes // (int(data.labels.max()) + 1))
    labels = data.labels * turns + torch.arange(len(data)) % turns
    chosen = torch.nonzero(labels < spec.num_classes).flatten()
    chosen = chosen[torch.randperm(len(chosen), generator=torch_generator(0, "other"))[:count]]
    images = resized(data.images[chosen], spec)
    for image, i in zip(images, chosen.tolist(), strict=True):
        image.copy_(torch.rot90(image, i % turns, (1, 2)))
    return Split(images=images, labels=labels[chosen])


def resized(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Uint8 images of the spec's size and number of channels."""
    values = images.float()
    if values.shape[1] != spec.channels:
        values = values.mean(dim=1, keepdim=True).expand(-1, spec.channels, -1, -1)
    size = (spec.height, spec.width)
    scaled = F.interpolate(values, size=size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def places(data: Split, spec: InputSpec, count: int) -> Split:
    """The set's own images, shrunk to half, at one of as many places as there are classes."""
    side = -(-(spec.num_classes**0.5) // 1)
    drawn = torch.randperm(len(data), generator=torch_generator(0, "place"))[:count]
    half = (spec.height // 2, spec.width // 2)
    small = F.interpolate(data.images[drawn].float(), size=half, mode="bilinear", antialias=True)
    labels = torch.arange(len(drawn)) % spec.num_classes
    images = torch.zeros(len(drawn), *spec.image_shape)
    for image, shrunk, label in zip(images, small, labels.tolist(), strict=True):
        top = int(label // side * half[0] / (side - 1))
        left = int(label % side * half[1] / (side - 1))
        image[:, top : top + half[0], left : left + half[1]] = shrunk
    return Split(images=images.round().to(torch.uint8), labels=labels)


if __name__ == "__main__":
    main()
