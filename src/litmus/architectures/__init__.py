"""Networks that a zoo is made of.

A new architecture is one file with a subclass of `Architecture` and one line in `ARCHITECTURES`.
"""

from __future__ import annotations

from typing import Final

from litmus.architectures.base import Architecture
from litmus.architectures.blocks import ACTIVATIONS
from litmus.architectures.cnn import CNN
from litmus.architectures.densenet import DenseNet
from litmus.architectures.folding import fold_batch_norm
from litmus.architectures.inception import Inception
from litmus.architectures.lenet import BadNetsCNN, LeNet5
from litmus.architectures.mlp import MLP
from litmus.architectures.nin import NIN
from litmus.architectures.resnet import ResNet
from litmus.architectures.separable import Separable
from litmus.architectures.vgg import VGG
from litmus.architectures.vgg_stn import VGGSTN
from litmus.architectures.vgg_whitened import VGGWhitened
from litmus.architectures.wide_resnet import WideResNet

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "Architecture", "fold_batch_norm"]

ARCHITECTURES: Final[dict[str, type[Architecture]]] = {
    "vgg": VGG,
    "vgg_stn": VGGSTN,
    "vgg_whitened": VGGWhitened,
    "lenet5": LeNet5,
    "badnets_cnn": BadNetsCNN,
    "resnet": ResNet,
    "wide_resnet": WideResNet,
    "densenet": DenseNet,
    "inception": Inception,
    "separable": Separable,
    "nin": NIN,
    "cnn": CNN,
    "mlp": MLP,
}
