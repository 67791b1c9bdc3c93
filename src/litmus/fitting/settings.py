"""The hyperparameters of a fit of patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError
from litmus.features import FEATURES, HEADS, POOLINGS, Features, HeadName, Pooling
from litmus.fitting.canvas import CANVASES, CanvasName

__all__ = ["STARTS", "PatternSettings"]

Start = Literal["noise", "background", "low_frequency"]
STARTS: Final[tuple[Start, ...]] = ("noise", "background", "low_frequency")


@dataclass(frozen=True, kw_only=True)
class PatternSettings:
    """Hyperparameters of a fit.

    `learn_patterns` False keeps the random patterns (the paper's noise input). `start` says how
    the patterns begin: as `noise`, each pixel at random (the paper), as faint noise of
    `start_amplitude` around the `background` of the data set's images, or as smooth clouds of
    `low_frequency`. `canvas` is what learns them. `scale_per_model` standardises each model's
    answers by themselves. `twin_weight` is the share of the loss that compares a backdoored model
    with its own clean control, instead of telling all models apart. `balance_weight` is that of an
    adversary which reads a model's family of architectures off its score. `dropout` is the share
    of channels that model dropout removes. Learning rates are Adam's.
    """

    num_patterns: int = 10
    pooling: Pooling = "concatenate"
    features: Features = "log_probs"
    learn_patterns: bool = True
    start: Start = "noise"
    start_amplitude: float = 0.1
    canvas: CanvasName = "pixels"
    head: HeadName = "linear"
    scale_per_model: bool = False
    twin_weight: float = 0.0
    balance_weight: float = 0.0
    epochs: int = 60
    batch_models: int = 16
    pattern_learning_rate: float = 0.03
    head_learning_rate: float = 0.01
    head_weight_decay: float = 0.1
    tv_weight: float = 1e-4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(self, num_patterns=1, epochs=1, batch_models=1, balance_weight=0)
        check_choices(
            self, pooling=POOLINGS, features=FEATURES, start=STARTS, canvas=CANVASES, head=HEADS
        )
        for name in ("start_amplitude", "twin_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is impossible", expected="0 to 1", got=getattr(self, name)
                )
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout is impossible", expected="0 <= p < 1", got=self.dropout)
