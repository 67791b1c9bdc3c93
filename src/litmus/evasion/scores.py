"""Detectors' scores in torch: what an attacker who has a detector can differentiate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from litmus.detectors import Detector
from litmus.detectors.fused import FusedDetector
from litmus.detectors.last_layer import LastLayerDetector
from litmus.detectors.patterns import PatternDetector
from litmus.errors import UsageError
from litmus.evasion.statistics import layer_statistics
from litmus.fitting.population import canonical
from litmus.fitting.readout import fitted_head, scaled_per_model
from litmus.formats.torch_last_layer import last_layer_tensors
from litmus.models import Model
from litmus.training import Penalty
from litmus.zoo.spec import FineTuning

__all__ = ["Score", "attacked_parts", "check_attackable", "log_odds", "penalty"]

Score = Callable[[nn.Module], torch.Tensor]
"""From a network in evaluation mode to a detector's log-odds of a backdoor, float64 ()."""


def penalty(detector: Detector, model: Model, tuning: FineTuning) -> Penalty:
    """Return what an attacker adds to the loss of a network that begins as `model`.

    `tuning.weight` times, where its `aim` is `low`, the softplus of the detector's log-odds of a
    backdoor; where it is `clean`, how far these are (smooth L1 distance) from the median of the
    clean models that the detector was calibrated on, which its file tells. Taken in evaluation
    mode, as the detector will see the network. Raises UsageError where there is no gradient.
    """
    score = log_odds(detector, model)
    scores = detector.calibration_of(detector.measure(model)).scores
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


def log_odds(detector: Detector, model: Model) -> Score:
    """Return a detector's score as a function of a network like `model`, with gradients.

    It is the score that `detector.measure` computes in NumPy, the mean over members. Of a fused
    detector, parts that can't be differentiated keep the score that they give to `model`. Raises
    UsageError where nothing can be.
    """
    check_attackable(detector)
    if isinstance(detector, PatternDetector):
        return _pattern_score(detector)
    if isinstance(detector, LastLayerDetector):
        return _layer_score(detector, model)
    assert isinstance(detector, FusedDetector)
    return _fused_score(detector, model)


def attacked_parts(detector: Detector) -> tuple[str, ...]:
    """Return the names of what can be differentiated: the detector's own, or its parts'."""
    if isinstance(detector, FusedDetector):
        return tuple(name for name, part in detector.parts.items() if attacked_parts(part))
    return (detector.name,) if isinstance(detector, PatternDetector | LastLayerDetector) else ()


def check_attackable(detector: Detector) -> None:
    """Raise UsageError where no part of a detector can be differentiated."""
    if not attacked_parts(detector):
        raise UsageError(
            "this detector's score has no gradient that an attack could follow",
            expected="ulp, noise, last_layer, or fused with one of them",
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
    mean, std, weight, bias = (
        torch.from_numpy(detector.arrays()[name]) for name in ("mean", "std", "weight", "bias")
    )

    def score(module: nn.Module) -> torch.Tensor:
        statistics = layer_statistics(*last_layer_tensors(module, model.input_spec, model.outputs))
        return ((weight * (statistics - mean) / std).sum(dim=1) + bias).mean()

    return score


def _fused_score(detector: FusedDetector, model: Model) -> Score:
    permitted = tuple(detector.measure(model).parts)
    combination = detector.combinations[permitted]
    attacked = attacked_parts(detector)
    weighted: list[tuple[float, Score]] = []
    constant = combination.bias
    for name, weight in zip(permitted, combination.weights.tolist(), strict=True):
        part = detector.parts[name]
        if name in attacked:
            weighted.append((weight, log_odds(part, model)))
        else:
            constant += weight * part.score(model)

    def score(module: nn.Module) -> torch.Tensor:
        total = torch.tensor(constant, dtype=torch.float64)
        for weight, part in weighted:
            total = total + weight * part(module)
        return total

    return score
