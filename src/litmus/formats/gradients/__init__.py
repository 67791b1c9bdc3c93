"""The gradient of an ONNX graph to its image, written as ONNX: an operator, a function.

`RULES` says which function writes the backward nodes of which operator. The graph may be hostile:
its names are only ever names, and nothing of it is run but by onnxruntime.
"""

from __future__ import annotations

from typing import Final

from litmus.formats.gradients import (
    arithmetic,
    convolutions,
    normalisation,
    pooling,
    products,
    quantisation,
    reductions,
    sampling,
    shapes,
)
from litmus.formats.gradients.activations import ACTIVATIONS
from litmus.formats.gradients.builder import Rule

__all__ = ["FLAT", "RULES"]

RULES: Final[dict[str, Rule]] = {
    **ACTIVATIONS,
    "Add": arithmetic.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalisation.batch_norm,
    "Cast": shapes.cast,
    "CastLike": shapes.cast,
    "Concat": shapes.concat,
    "Conv": convolutions.convolution,
    "ConvInteger": quantisation.convolve_integers,
    "ConvTranspose": convolutions.transposed_convolution,
    "CumSum": shapes.cumulative_sum,
    "DepthToSpace": shapes.depth_to_space,
    "DequantizeLinear": quantisation.dequantise,
    "Div": arithmetic.divide,
    "Dropout": shapes.passed_on,
    "DynamicQuantizeLinear": quantisation.dynamic_quantise,
    "Einsum": products.einsum,
    "Expand": shapes.expand,
    "Flatten": shapes.reshaped,
    "Gather": shapes.gather,
    "Gemm": products.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "GridSample": sampling.grid_sample,
    "GroupNormalization": normalisation.group_norm,
    "Identity": shapes.passed_on,
    "InstanceNormalization": normalisation.instance_norm,
    "LRN": normalisation.local_response_norm,
    "LayerNormalization": normalisation.layer_norm,
    "LogSoftmax": reductions.log_softmax,
    "LpNormalization": normalisation.lp_norm,
    "LpPool": pooling.lp_pool,
    "MatMul": products.matmul,
    "MatMulInteger": quantisation.multiply_integers,
    "Max": arithmetic.extreme,
    "MaxPool": pooling.max_pool,
    "Mean": arithmetic.mean,
    "MeanVarianceNormalization": normalisation.mean_variance_norm,
    "Min": arithmetic.extreme,
    "Mul": arithmetic.multiply,
    "Pad": shapes.pad,
    "Pow": arithmetic.power,
    "QLinearConv": quantisation.quantised_convolution,
    "QLinearMatMul": quantisation.quantised_product,
    "QuantizeLinear": quantisation.quantise,
    "ReduceL1": reductions.reduction,
    "ReduceL2": reductions.reduction,
    "ReduceLogSum": reductions.reduction,
    "ReduceLogSumExp": reductions.reduction,
    "ReduceMax": reductions.reduction,
    "ReduceMean": reductions.reduction,
    "ReduceMin": reductions.reduction,
    "ReduceProd": reductions.reduction,
    "ReduceSum": reductions.reduction,
    "ReduceSumSquare": reductions.reduction,
    "Reshape": shapes.reshaped,
    "Resize": shapes.resize,
    "Slice": shapes.slices,
    "Softmax": reductions.softmax,
    "SpaceToDepth": shapes.space_to_depth,
    "Split": shapes.split,
    "Squeeze": shapes.reshaped,
    "Sub": arithmetic.subtract,
    "Sum": arithmetic.add,
    "Tile": shapes.tile,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.reshaped,
    "Where": arithmetic.where,
}
"""Operators that a gradient passes through."""

FLAT: Final = frozenset(
    {
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "Ceil",
        "ConstantOfShape",
        "Equal",
        "EyeLike",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "NonZero",
        "Not",
        "OneHot",
        "Or",
        "Range",
        "Round",
        "Shape",
        "Sign",
        "Size",
        "Xor",
    }
)
"""Operators whose gradient is zero wherever it is a number."""
