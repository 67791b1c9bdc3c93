"""Networks that a zoo is made of.

A new architecture is one file with a subclass of `Architecture` and one line in `ARCHITECTURES`.
"""

from __future__ import annotations

from typing import Final

from litmus.architectures.base import Architecture
from litmus.architectures.folding import fold_batch_norm
from litmus.architectures.lenet import BadNetsCNN, LeNet5
from litmus.architectures.resnet import ResNet
from litmus.architectures.vgg import VGG
from litmus.architectures.vgg_stn import VGGSTN
from litmus.architectures.vgg_whitened import VGGWhitened

__all__ = ["ARCHITECTURES", "Architecture", "fold_batch_norm"]

ARCHITECTURES: Final[dict[str, type[Architecture]]] = {
    "vgg": VGG,
    "vgg_stn": VGGSTN,
    "vgg_whitened": VGGWhitened,
    "lenet5": LeNet5,
    "badnets_cnn": BadNetsCNN,
    "resnet": ResNet,
}
