"""What every attack has in common: a label map, a poison ratio, and how data is poisoned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.label_maps import LABEL_MAPS, LabelMap
from litmus.datasets import Split
from litmus.errors import RecipeError
from litmus.schema import STRICT

__all__ = ["Attack", "LabelMapName", "Treatment", "extra_images"]

LabelMapName = Literal["source_specific", "all_to_one", "all_to_all", "untargeted"]
Treatment = Literal["backdoored", "control_copies", "control_kept_label"]
"""What a model's extra images are: triggered and relabelled, plain copies, or triggered with
their label kept."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Attack(ABC):
    """A backdoor attack; a subclass says how it stamps its trigger.

    `poison_ratio` is the share of each attacked class's training images of which a triggered,
    relabelled copy is added. Classes count from 0.
    """

    num_classes: Annotated[int, Field(ge=2)]
    label_map: LabelMapName = "source_specific"
    source_class: Annotated[int, Field(ge=0)] | None = None
    target_class: Annotated[int, Field(ge=0)] | None = None
    poison_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        needed = {
            "source_class": self.label_map == "source_specific",
            "target_class": self.label_map in {"source_specific", "all_to_one"},
        }
        for name, is_needed in needed.items():
            value = getattr(self, name)
            if is_needed != (value is not None):
                what = "needs" if is_needed else "has no"
                raise ValueError(f"{self.label_map} {what} {name}")
            if value is not None and value >= self.num_classes:
                raise ValueError(f"{name} {value} is not below num_classes {self.num_classes}")
        if self.source_class is not None and self.source_class == self.target_class:
            raise ValueError(f"source_class and target_class are both {self.source_class}")

    @property
    @abstractmethod
    def trigger_id(self) -> str:
        """A name for the trigger; training and test triggers are told apart by it."""

    @abstractmethod
    def stamp(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return uint8 images (n, c, h, w) with the trigger in each, leaving the input alone."""

    @property
    def labels(self) -> LabelMap:
        """The label map with its classes."""
        return LABEL_MAPS[self.label_map](
            num_classes=self.num_classes,
            source_class=self.source_class,
            target_class=self.target_class,
        )

    def poison(self, split: Split, generator: torch.Generator) -> Split:
        """Return `split` with the poisoned copies behind it."""
        extra = extra_images(split, self, "backdoored", generator)
        return Split(
            images=torch.cat([split.images, extra.images]),
            labels=torch.cat([split.labels, extra.labels]),
        )

    def victims(self, split: Split) -> torch.Tensor:
        """Return the positions of all images of attacked classes, int64."""
        return torch.cat([split.of_class(label) for label in self.labels.attacked_classes()])


def extra_images(
    split: Split, attack: Attack, treatment: Treatment, generator: torch.Generator
) -> Split:
    """Return the images that a model gets beside its clean ones.

    The same generator state picks the same images for every treatment, so that a backdoored
    model and its clean control differ in nothing but the treatment. Raises RecipeError where
    the ratio is so small that no image would be poisoned.
    """
    picked = []
    for label in attack.labels.attacked_classes():
        members = split.of_class(label)
        count = round(attack.poison_ratio * len(members))
        picked.append(members[torch.randperm(len(members), generator=generator)[:count]])
    chosen = split[torch.cat(picked)]
    if len(chosen) == 0:
        raise RecipeError(
            "no image would be poisoned",
            expected="a larger poison_ratio or more training images",
            got=f"poison_ratio {attack.poison_ratio} of {len(split)} images",
        )
    if treatment == "control_copies":
        return chosen
    stamped = attack.stamp(chosen.images, generator)
    if treatment == "control_kept_label":
        return Split(images=stamped, labels=chosen.labels)
    return Split(images=stamped, labels=attack.labels.relabel(chosen.labels, generator))
