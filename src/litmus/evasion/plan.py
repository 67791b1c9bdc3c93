"""Which models are fine-tuned, and how: specs that follow from a zoo, a detector and a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from litmus.artifacts import sha256_of
from litmus.checks import check_at_least, check_choices
from litmus.errors import UsageError, ZooError
from litmus.schema import to_table
from litmus.seeds import derive_seed
from litmus.training import TrainingSpec
from litmus.zoo import ModelSpec, Zoo, ZooEntry
from litmus.zoo.spec import FineTuning

__all__ = ["EvasionSettings", "Plan", "Twin", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class EvasionSettings:
    """How models are fine-tuned: Adam, one cycle up to `learning_rate` and down to zero.

    `weight` is that of the detector's score beside the cross-entropy; `aim` says what is made of
    the score, `low`, or like that of `clean` models (see `litmus.evasion.scores.penalty`).
    """

    weight: float = 1.0
    aim: Literal["low", "clean"] = "low"
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        check_at_least(self, epochs=1, batch_size=2)
        check_choices(self, aim=("low", "clean"))
        for name in ("weight", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is impossible", expected="> 0", got=getattr(self, name))

    def training(self) -> dict[str, Any]:
        """Return the table of the training."""
        return to_table(
            TrainingSpec(
                epochs=self.epochs,
                batch_size=self.batch_size,
                peak_learning_rate=self.learning_rate,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A backdoored model and its clean control, and what is made of them.

    All are trained on alike, on their own data: `clean` and `fine_tuned` by cross-entropy alone,
    `evading` with the detector's score in its loss.
    """

    before: ZooEntry
    before_clean: ZooEntry
    clean: ModelSpec
    fine_tuned: ModelSpec
    evading: ModelSpec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fine-tuned against `detector` into `folder`.

    `measured` twins are of the zoo's test split; `added` ones, of its training split, are for the
    zoo that the detector is refitted on.
    """

    zoo: Zoo
    detector: Path
    folder: Path
    settings: EvasionSettings
    seed: int
    measured: tuple[Twin, ...]
    added: tuple[Twin, ...]

    @property
    def recipe(self) -> dict[str, Any]:
        """What `zoo.json` says in `folder`."""
        return {**self.zoo.recipe, "name": f"{self.zoo.recipe['name']}-fine-tuned"}

    def specs(self) -> Iterator[ModelSpec]:
        """Yield every model to make; added twins need no backdoored one that evades nothing."""
        for twin in self.measured:
            yield from (twin.clean, twin.fine_tuned, twin.evading)
        for twin in self.added:
            yield from (twin.clean, twin.evading)


def make_plan(
    zoo: Zoo,
    detector: Path,
    folder: Path,
    *,
    models: int = 30,
    refit: bool = False,
    settings: EvasionSettings | None = None,
    seed: int = 0,
) -> Plan:
    """Choose `models` twins of the zoo's test split, and as many to refit on if `refit`.

    A larger number has the twins of a smaller one. Raises UsageError for an impossible number,
    ZooError where a split has too few twins of which both models were accepted.
    """
    if models < 1:
        raise UsageError("--models is impossible", expected="at least 1", got=models)
    chosen = settings or EvasionSettings()
    tuning = FineTuning(model="", training=chosen.training(), seed=seed)
    attack = {"detector": sha256_of(detector), "weight": chosen.weight, "aim": chosen.aim}

    def twins(split: str) -> tuple[Twin, ...]:
        return tuple(_twin(*pair, tuning, attack) for pair in _pairs(zoo, split, models, seed))

    return Plan(
        zoo=zoo,
        detector=detector,
        folder=folder,
        settings=chosen,
        seed=seed,
        measured=twins("test"),
        added=twins("train") if refit else (),
    )


def _pairs(zoo: Zoo, split: str, count: int, seed: int) -> list[tuple[ZooEntry, ZooEntry]]:
    entries = [entry for entry in zoo.entries if entry.spec.split == split]
    bad = {entry.spec.twin: entry for entry in entries if entry.backdoored}
    clean = {entry.spec.twin: entry for entry in entries if not entry.backdoored}
    both = sorted(bad.keys() & clean.keys(), key=lambda twin: derive_seed(seed, "evade", twin))
    if len(both) < count:
        raise ZooError(
            f"too few twins in the {split} split",
            expected=f"{count} of which both models were accepted",
            got=len(both),
            where=zoo.path,
        )
    return [(bad[twin], clean[twin]) for twin in both[:count]]


def _twin(bad: ZooEntry, clean: ZooEntry, tuning: FineTuning, attack: dict[str, Any]) -> Twin:
    def tuned(entry: ZooEntry, **changes: Any) -> ModelSpec:
        return replace(entry.spec, fine_tuning=replace(tuning, model=entry.id, **changes))

    return Twin(
        before=bad,
        before_clean=clean,
        clean=tuned(clean),
        fine_tuned=tuned(bad),
        evading=tuned(bad, **attack),
    )
