"""What convolutions reach on this machine, and how many operations a network asks for."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["convolution_peak", "step_flops"]

_SHAPES = ((64, 64, 16), (32, 128, 16), (32, 256, 8), (16, 256, 16))
"""Images, channels and side: 3x3 convolutions that CPUs do well at."""
_SECONDS = 1.0


def convolution_peak() -> float:
    """Return FLOP a CPU-second of this thread at the best of a few 3x3 convolutions, forward."""
    return max(_rate(*shape) for shape in _SHAPES)


def _rate(n: int, channels: int, side: int) -> float:
    x = torch.rand(n, channels, side, side).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    flops = 2 * n * side**2 * channels**2 * 9
    best = 0.0
    with torch.inference_mode():
        F.conv2d(x, weight, padding=1)
        end = time.perf_counter() + _SECONDS
        while time.perf_counter() < end:
            start = time.process_time()
            F.conv2d(x, weight, padding=1)
            best = max(best, flops / (time.process_time() - start))
    return best


def step_flops(module: nn.Module, images: torch.Tensor, *, weights: bool = True) -> int:
    """Return the FLOP of a pass forward and backward, to the weights or to the images alone."""
    counter = FlopCounterMode(display=False)
    module.requires_grad_(weights)
    with counter:
        module(images.requires_grad_(not weights)).sum().backward()
    return int(counter.get_total_flops())
