"""What reference images told of a model, and what leads there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from litmus.models import LogProbs, Model

__all__ = ["Order", "Reading", "Recognition", "Way", "agreement", "order_text"]

Order = Literal["known", "named", "searched"]
"""Whence it is known which output is which class: nothing speaks against the detector's order,
class names say so, or the answers to the references."""

_SHOWN: Final = 12


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What reference images told of a model.

    `model` is the same model, fed as was found and with its classes in the detector's order.
    `wants` is the name of the input that was found, None where none was searched for. `order`
    (k,) has the model's output for each class of the detector. `agreement` is the mean
    probability that the references have of their class, None without references. `out_of_scope`
    says why nothing fits; it is empty where the model is one for these classes.
    """

    model: Model
    wants: str | None = None
    order: tuple[int, ...] = ()
    agreement: float | None = None
    notes: tuple[str, ...] = ()
    out_of_scope: str = ""


@dataclass(frozen=True)
class Way:
    """A model, fed in one way; `wants` names it where it was searched for."""

    model: Model
    wants: str | None = None
    probability: float = 1.0


@dataclass(frozen=True)
class Reading:
    """The answers (k, k) to all references, and which output is which class (k,)."""

    answers: LogProbs
    order: NDArray[np.int64]
    how: Order

    @property
    def agreement(self) -> float:
        """The mean probability of the references' classes."""
        return agreement(self.answers, self.order)

    @property
    def says(self) -> str:
        """How many are on their class."""
        on_class = int((self.answers.argmax(axis=1) == self.order).sum())
        return f"{on_class} of {len(self.order)} reference images are on their class"


def agreement(answers: LogProbs, order: NDArray[np.int64]) -> float:
    """Return the mean probability of class i's output in the answer to reference i."""
    return float(np.exp(answers[np.arange(len(order)), order]).mean())


def order_text(order: NDArray[np.int64], how: Order) -> str:
    """Say which classes the outputs are, and whence that is known."""
    source = "by their names" if how == "named" else "by their answers"
    outputs = np.argsort(order)
    as_text = sorted(range(len(order)), key=str)
    shown = ", ".join(map(str, outputs[:_SHOWN])) + (", ..." if len(order) > _SHOWN else "")
    sorted_as_text = ", sorted as text" if outputs.tolist() == as_text else ""
    return f"its outputs are, {source}, the detector's classes {shown}{sorted_as_text}"
