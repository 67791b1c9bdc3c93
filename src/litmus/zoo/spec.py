"""Resolved specifications: every parameter of one model, from which its id and seed come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from litmus.artifacts import canonical_json
from litmus.models import InputSpec
from litmus.seeds import derive_seed

if TYPE_CHECKING:
    from litmus.architectures import Architecture
    from litmus.attacks import Attack, Treatment
    from litmus.training import TrainingSpec

__all__ = ["FineTuning", "ModelSpec", "SplitName"]

SplitName = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What was done to a zoo's model after its training.

    `model` is that model's id, `training` says how it was trained on, on its own data and with
    what is drawn from `seed`. Where `weight` is above 0, it was trained to evade the detector
    with the SHA-256 `detector`: `aim` says whether to score `low` or like `clean` models.
    """

    model: str
    training: Mapping[str, Any]
    seed: int
    detector: str | None = None
    weight: float = 0.0
    aim: Literal["low", "clean"] = "low"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model of a zoo, whole: the same spec gives the same bytes.

    `twin` numbers the pair of a backdoored model and its clean control within the recipe; the
    control's `attack` is its twin's, which says what its extra images are. Tables are plain
    dictionaries in the recipe's terms. Of a model that was fine-tuned, everything else is that of
    the model which it was before, its `origin`. `ancestor` is the id of the clean model, of another
    zoo, with whose weights the training begins; without one it begins with drawn weights.
    """

    dataset: Mapping[str, Any]
    input_spec: InputSpec
    architecture: Mapping[str, Any]
    training: Mapping[str, Any]
    attack: Mapping[str, Any]
    treatment: Treatment
    gates: Mapping[str, float]
    split: SplitName
    zoo_seed: int
    twin: int
    attempt: int = 0
    fine_tuning: FineTuning | None = None
    ancestor: str | None = None

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn for this model."""
        return derive_seed("model", self.to_json())

    @property
    def backdoored(self) -> bool:
        """Whether the model is backdoored; otherwise it is a clean control."""
        return self.treatment == "backdoored"

    def next_attempt(self) -> ModelSpec:
        """Return the spec that replaces this one after it failed its gate."""
        return replace(self, attempt=self.attempt + 1)

    def substitute(self, attempts: int) -> ModelSpec | None:
        """Return the next attempt, or None where `attempts` in all have been made."""
        return self.next_attempt() if self.attempt + 1 < attempts else None

    @property
    def images(self) -> dict[str, Any]:
        """Name and options of the data set, as it is loaded for all models."""
        return {k: v for k, v in self.dataset.items() if k not in ("train_images", "test_images")}

    @property
    def origin(self) -> ModelSpec:
        """The spec of the model before it was fine-tuned; this one, if it was not."""
        return replace(self, fine_tuning=None)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries for a header."""
        table = asdict(self)
        for later in ("fine_tuning", "ancestor"):  # as in the zoos that are older than these
            if table[later] is None:
                del table[later]
        return table

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelSpec:
        """Read what `to_json` wrote."""
        read: dict[str, Any] = {"input_spec": InputSpec.from_json(value["input_spec"])}
        if "fine_tuning" in value:
            read["fine_tuning"] = FineTuning(**value["fine_tuning"])
        return cls(**{**value, **read})

    def build_architecture(self) -> Architecture:
        """Return the architecture's object."""
        from litmus.architectures import ARCHITECTURES
        from litmus.schema import named_from_table

        return named_from_table(ARCHITECTURES, self.architecture, "architecture", "architecture")

    def build_attack(self) -> Attack:
        """Return the attack's object; for a control, its twin's."""
        from litmus.attacks import ATTACKS
        from litmus.schema import named_from_table

        return named_from_table(ATTACKS, self.attack, "attack", "attack")

    def build_training(self) -> TrainingSpec:
        """Return the training's object."""
        from litmus.schema import from_table
        from litmus.training import TrainingSpec

        return from_table(TrainingSpec, self.training, "training")
