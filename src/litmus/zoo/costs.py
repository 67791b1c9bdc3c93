"""How much work a model's training is, counted without any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from litmus.artifacts import canonical_json
from litmus.zoo.spec import ModelSpec

__all__ = ["Cost", "cost_counter"]

_BACKWARD: Final = 3
"""Forward, gradient of the input, gradient of the weights: as many operations each."""

_STEP: Final = 5e7
"""Operations that the overhead of one step of a small network is worth: some milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A model's training: its steps, and the floating-point operations of an image's forward pass.

    `flops` are those of the whole training (a multiply-add is two); `extra` is the number of
    images that the attack adds, `size` that of weights and buffers.
    """

    steps: int
    extra: int
    batch_size: int
    forward_flops: float
    size: int

    @property
    def step_flops(self) -> float:
        """Operations of one step."""
        return _BACKWARD * self.batch_size * self.forward_flops

    @property
    def flops(self) -> float:
        """Operations of all steps."""
        return self.steps * self.step_flops

    @property
    def work(self) -> float:
        """What tasks are sized by: operations, and an allowance for each step."""
        return self.flops + self.steps * _STEP


def cost_counter(train_images: int) -> Callable[[ModelSpec], Cost]:
    """Return a function that tells a spec's cost; each network is counted once.

    `train_images` is the size of the training split, for recipes that take all of it.
    """

    @cache
    def network(key: str) -> tuple[float, int]:
        spec = examples[key]
        module = spec.build_architecture().skeleton(spec.input_spec)
        images = torch.empty(1, *spec.input_spec.image_shape, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(images)
        size = sum(tensor.numel() for tensor in module.state_dict().values())
        return float(counter.get_total_flops()), size

    examples: dict[str, ModelSpec] = {}

    def count(spec: ModelSpec) -> Cost:
        key = canonical_json(spec.architecture)
        examples.setdefault(key, spec)
        forward_flops, size = network(key)
        training = spec.build_training()
        clean = spec.dataset["train_images"] or train_images
        extra = extra_images(spec, clean)
        images = clean + extra
        return Cost(
            steps=training.steps(images),
            extra=extra,
            batch_size=min(training.batch_size, images),
            forward_flops=forward_flops,
            size=size,
        )

    return count


def extra_images(spec: ModelSpec, clean: int) -> int:
    """Return about how many images the attack adds: classes are taken to be of one size."""
    classes = spec.input_spec.num_classes
    attacked = {"source_specific": 1, "all_to_one": classes - 1}.get(
        spec.attack["label_map"], classes
    )
    return round(clean * attacked / classes * float(spec.attack["poison_ratio"]))
