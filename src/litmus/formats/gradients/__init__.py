"""The gradient of an ONNX graph to its image, as an ONNX graph; no PyTorch.

A new operator is one function and one line in the dict literal of its file.
"""

from __future__ import annotations

from typing import Final

from litmus.formats.gradients.builder import Rule
from litmus.formats.gradients.linear import LINEAR
from litmus.formats.gradients.network import OnnxGradients
from litmus.formats.gradients.pointwise import POINTWISE
from litmus.formats.gradients.reducing import REDUCING
from litmus.formats.gradients.sampling import SAMPLING
from litmus.formats.gradients.shaping import SHAPING

__all__ = ["FLAT", "GRADIENTS", "OnnxGradients"]

GRADIENTS: Final[dict[str, Rule]] = {**LINEAR, **POINTWISE, **SHAPING, **REDUCING, **SAMPLING}

FLAT: Final = frozenset(
    {
        "ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf",
        "IsNaN", "Less", "LessOrEqual", "Not", "Round", "Shape", "Sign", "Size",
    }
)  # fmt: skip
"""Operators whose values no small change of an image changes: no gradient passes them."""
