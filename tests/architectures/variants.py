"""Parameters beside the defaults that the promises of architectures are held to."""

from __future__ import annotations

from typing import Any, Final

import pytest

from litmus.architectures import ARCHITECTURES

Options = dict[str, Any]

VARIANTS: Final[dict[str, list[Options]]] = {
    "vgg": [{"activation": "elu", "norm": "group", "hidden": 5}, {"width": 3, "norm": "none"}],
    "vgg_stn": [{"stem": 4, "channels": (3,), "input_scaling": "standard"}],
    "vgg_whitened": [{"stem": 4, "channels": (3,), "activation": "silu"}],
    "lenet5": [{"activation": "gelu", "input_scaling": "bytes"}],
    "badnets_cnn": [{"hidden": 7, "activation": "leaky_relu", "input_scaling": "signed"}],
    "resnet": [
        {"width": 5, "activation": "gelu", "norm": "group", "stem_stride": 2},
        {"width": 4, "blocks": 2, "activation": "tanh", "norm": "none"},
    ],
    "wide_resnet": [
        {"width": 4, "blocks": 2, "dropout": 0.3, "activation": "silu"},
        {"width": 4, "widen": 1, "norm": "group", "stem_stride": 1},
        {"width": 4, "norm": "none", "activation": "elu", "input_scaling": "standard"},
    ],
    "densenet": [
        {"growth": 3, "blocks": (2,), "bottleneck": True, "activation": "leaky_relu"},
        {"growth": 4, "blocks": (1, 2), "compression": 0.3, "norm": "group"},
        {"growth": 1, "blocks": (1, 1), "compression": 0.1, "stem_stride": 1, "norm": "none"},
    ],
    "inception": [
        {"width": 4, "stages": 3, "activation": "elu", "dropout": 0.2},
        {"width": 8, "blocks": 2, "norm": "group"},
        {"width": 4, "stages": 1, "norm": "none", "stem_stride": 1, "input_scaling": "signed"},
    ],
    "separable": [
        {"width": 4, "expansion": 2, "blocks": 2, "dropout": 0.2},
        {"width": 3, "kernel": 5, "blocks": 2, "norm": "none", "activation": "tanh"},
        {"width": 4, "stages": 1, "expansion": 1, "kernel": 7, "norm": "group"},
    ],
    "nin": [
        {"channels": (4, 6, 8), "pointwise": 2, "kernel": 5, "dropout": 0.4},
        {"channels": (5,), "norm": "none", "activation": "elu"},
        {"channels": (4, 4), "pooling": "average", "norm": "group", "stem_stride": 1},
    ],
    "cnn": [
        {"channels": (3, 5, 7), "pooling": "stride", "kernel": 7, "norm": "batch"},
        {"channels": (4,), "convolutions": 2, "head": "global", "hidden": 0, "bias": False},
        {"channels": (4, 8), "norm": "group", "dropout": 0.5, "pooling": "average"},
        {"channels": (4, 8), "norm": "batch", "bias": False, "input_scaling": "bytes"},
    ],
    "mlp": [{"hidden": (5,)}, {"hidden": (9, 8, 7), "dropout": 0.5, "activation": "tanh"}],
}

every = pytest.mark.parametrize("name", ARCHITECTURES)
every_variant = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=f"{name}-{place}" if place else name)
        for name in ARCHITECTURES
        for place, options in enumerate([{}, *VARIANTS.get(name, [])])
    ],
)
