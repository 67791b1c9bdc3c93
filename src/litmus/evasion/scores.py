"""Detectors' scores in torch: what an attacker who has a detector can differentiate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from litmus.detectors import Detector
from litmus.detectors.fused import FusedDetector
from litmus.detectors.last_layer import LastLayerDetector
from litmus.detectors.patterns import PatternDetector
from litmus.detectors.stamps import StampsDetector
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import UsageError
from litmus.evasion.statistics import layer_statistics, stamp_statistics
from litmus.fitting.population import canonical
from litmus.fitting.readout import fitted_head, scaled_per_model
from litmus.formats.torch_last_layer import last_layer_tensors
from litmus.models import Model
from litmus.seeds import torch_generator
from litmus.stamping import FAMILIES
from litmus.training import Penalty
from litmus.zoo.spec import FineTuning

__all__ = ["Score", "attacked_parts", "check_attackable", "log_odds", "penalty"]

Score = Callable[[nn.Module], torch.Tensor]
"""From a network in evaluation mode to a detector's log-odds of a backdoor, float64 ()."""

_SHARE: Final = 0.125
"""Of the stamps of each family, that an attacker's step goes by; all of them take long."""


def penalty(detector: Detector, model: Model, tuning: FineTuning) -> Penalty:
    """Return what an attacker adds to the loss of a network that begins as `model`.

    `tuning.weight` times, where its `aim` is `low`, the softplus of the detector's log-odds of a
    backdoor; where it is `clean`, how far these are (smooth L1 distance) from the median of the
    clean models that the detector was calibrated on, which its file tells. Taken in evaluation
    mode, as the detector will see the network, but for stamps, of which each step draws an eighth
    anew. Raises UsageError where there is no gradient.
    """
    score = log_odds(detector, model, share=_SHARE, seed=tuning.seed)
    scores = detector.calibration_of(detector.measure(model).parts).scores
    clean = torch.tensor(np.median(scores), dtype=torch.float64)

    def of(module: nn.Module) -> torch.Tensor:
        module.eval()
        try:
            value = score(module)
        finally:
            module.train()
        missed = F.softplus(value) if tuning.aim == "low" else F.smooth_l1_loss(value, clean)
        return tuning.weight * missed

    return of


def log_odds(detector: Detector, model: Model, *, share: float = 1.0, seed: int = 0) -> Score:
    """Return a detector's score as a function of a network like `model`, with gradients.

    It is the score that `detector.measure` computes in NumPy, the mean over members. With `share`
    below 1 each call sees that share of every family of stamps, drawn from `seed`. Of a fused
    detector, parts that can't be differentiated keep the score that they give to `model`. Raises
    UsageError where nothing can be.
    """
    check_attackable(detector)
    if isinstance(detector, PatternDetector):
        return _pattern_score(detector)
    if isinstance(detector, LastLayerDetector):
        return _layer_score(detector, model)
    if isinstance(detector, StampsDetector):
        return _stamp_score(detector, share, seed)
    assert isinstance(detector, FusedDetector)
    return _fused_score(detector, model, share, seed)


_DIFFERENTIABLE: Final = (PatternDetector, LastLayerDetector, StampsDetector)


def attacked_parts(detector: Detector) -> tuple[str, ...]:
    """Return the names of what can be differentiated: the detector's own, or its parts'."""
    if isinstance(detector, FusedDetector):
        return tuple(name for name, part in detector.parts.items() if attacked_parts(part))
    return (detector.name,) if isinstance(detector, _DIFFERENTIABLE) else ()


def check_attackable(detector: Detector) -> None:
    """Raise UsageError where no part of a detector can be differentiated."""
    if not attacked_parts(detector):
        raise UsageError(
            "this detector's score has no gradient that an attack could follow",
            expected="ulp, noise, last_layer, stamps, or fused with one of them",
            got=detector.name,
            where="--detector",
        )


def _pattern_score(detector: PatternDetector) -> Score:
    queries = torch.from_numpy(detector.queries).contiguous(memory_format=torch.channels_last)
    heads = [fitted_head(detector.head, m.parameters, detector.pooling) for m in detector.members]
    read = canonical if detector.features == "log_probs" else torch.Tensor.double

    def score(module: nn.Module) -> torch.Tensor:
        logits = module(queries)
        answers = read(logits).view(len(heads), -1, logits.shape[1])
        if detector.scale_per_model:
            answers = scaled_per_model(answers)
        pairs = torch.cat([head.logits(answers[i : i + 1]) for i, head in enumerate(heads)])
        return (pairs[:, 1] - pairs[:, 0]).mean()

    return score


def _layer_score(detector: LastLayerDetector, model: Model) -> Score:
    judge = _heads(detector)

    def score(module: nn.Module) -> torch.Tensor:
        weights, _ = last_layer_tensors(module, model.input_spec, model.outputs)
        return judge(layer_statistics(weights))

    return score


def _stamp_score(detector: StampsDetector, share: float, seed: int) -> Score:
    judge = _heads(detector)
    assert detector.images is not None
    plain, own = torch.from_numpy(detector.images), torch.from_numpy(detector.own)
    of_family = [
        torch.from_numpy(np.stack([s.on(detector.images) for s in detector.bank if s.family == f]))
        for f in FAMILIES
    ]
    drawn = torch_generator(seed, "stamps")

    def score(module: nn.Module) -> torch.Tensor:
        shown = [
            images[torch.randperm(len(images), generator=drawn)[: math.ceil(share * len(images))]]
            for images in of_family
        ]
        queries = torch.cat([plain, *(images.flatten(0, 1) for images in shown)])
        answers = canonical(module(queries.contiguous(memory_format=torch.channels_last)))
        first, *others = torch.split(
            answers, [len(plain), *(len(images) * len(plain) for images in shown)]
        )
        families = [other.view(-1, len(plain), answers.shape[1]) for other in others]
        return judge(stamp_statistics(first, families, own))

    return score


def _heads(detector: StatisticDetector) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mean log-odds of the members, from statistics."""
    mean, std, weight, bias = (
        torch.from_numpy(detector.arrays()[name]) for name in ("mean", "std", "weight", "bias")
    )
    return lambda statistics: ((weight * (statistics - mean) / std).sum(dim=1) + bias).mean()


def _fused_score(detector: FusedDetector, model: Model, share: float, seed: int) -> Score:
    permitted = tuple(detector.measure(model).parts)
    combination = detector.combinations[permitted]
    attacked = attacked_parts(detector)
    weighted: list[tuple[float, Score]] = []
    constant = combination.bias
    for name, weight in zip(permitted, combination.weights.tolist(), strict=True):
        part = detector.parts[name]
        if name in attacked:
            weighted.append((weight, log_odds(part, model, share=share, seed=seed)))
        else:
            constant += weight * part.score(model)

    def score(module: nn.Module) -> torch.Tensor:
        total = torch.tensor(constant, dtype=torch.float64)
        for weight, part in weighted:
            total = total + weight * part(module)
        return total

    return score
