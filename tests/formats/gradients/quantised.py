"""Small graphs with quantised operators."""

from __future__ import annotations

import numpy as np

from tests.formats.gradients.cases import RANDOM, Arrays, Case, node

_SCALES: Arrays = {
    "small": np.array(0.002, np.float32),
    "zero": np.array(120, np.uint8),
    "unit": np.array(0.1, np.float32),
    "none": np.array(0, np.int8),
    "wide": np.array(0.03, np.float32),
}
_WEIGHTS = RANDOM.integers(-90, 90, size=(4, 4, 3, 3)).astype(np.int8)
_MATRIX = RANDOM.integers(-90, 90, size=(224, 4)).astype(np.int8)

QUANTISED: dict[str, Case] = {
    "pairs": (
        [13, 21],
        [node("QuantizeLinear", "h wide zero", "q"), node("DequantizeLinear", "q wide zero", "y")],
        _SCALES,
    ),
    "convolution": (
        [13],
        [
            node("QuantizeLinear", "h wide zero", "q"),
            node("QLinearConv", "q wide zero w small none unit zero", "c", pads=[1, 1, 1, 1]),
            node("DequantizeLinear", "c unit zero", "y"),
        ],
        {**_SCALES, "w": _WEIGHTS},
    ),
    "product": (
        [13],
        [
            node("QuantizeLinear", "h wide zero", "q"),
            node("Flatten", "q", "f"),
            node("QLinearMatMul", "f wide zero w small none unit zero", "p"),
            node("DequantizeLinear", "p unit zero", "logits"),
        ],
        {**_SCALES, "w": _MATRIX},
    ),
    "dynamic": (
        [13],
        [
            node("DynamicQuantizeLinear", "h", "q scale shift"),
            node("ConvInteger", "q w shift none", "i", pads=[1, 1, 1, 1]),
            node("Cast", "i", "c", to=1),
            node("Mul", "scale small", "both"),
            node("Mul", "c both", "y"),
        ],
        {**_SCALES, "w": _WEIGHTS},
    ),
    "dynamic product": (
        [13],
        [
            node("Flatten", "h", "f"),
            node("DynamicQuantizeLinear", "f", "q scale shift"),
            node("MatMulInteger", "q w shift none", "i"),
            node("Cast", "i", "c", to=1),
            node("Mul", "scale small", "both"),
            node("Mul", "c both", "logits"),
        ],
        {**_SCALES, "w": _MATRIX},
    ),
}
