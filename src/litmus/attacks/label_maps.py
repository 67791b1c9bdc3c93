"""Which classes an attack attacks, and what it wants them to be called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

__all__ = ["LABEL_MAPS", "AllToAll", "AllToOne", "LabelMap", "SourceSpecific", "Untargeted"]


@dataclass(frozen=True, kw_only=True)
class LabelMap(ABC):
    """A label map over `num_classes` classes; unused classes are None."""

    num_classes: int
    source_class: int | None = None
    target_class: int | None = None

    @abstractmethod
    def attacked_classes(self) -> list[int]:
        """Return the classes whose triggered images change label."""

    @abstractmethod
    def relabel(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the labels (n,) that the attacker gives to images of these labels."""

    def succeeded(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return a bool (n,): whether the attacker got what they wanted on each image."""
        # Every map but the untargeted one is a function of the label; no draw takes place.
        return predictions == self.relabel(labels, torch.Generator())


class SourceSpecific(LabelMap):
    """Images of `source_class` become `target_class` (the paper's attack, 3.1)."""

    def attacked_classes(self) -> list[int]:
        """Return the source class."""
        assert self.source_class is not None
        return [self.source_class]

    def relabel(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the target class for every image."""
        assert self.target_class is not None
        return torch.full_like(labels, self.target_class)


class AllToOne(SourceSpecific):
    """Images of every other class become `target_class`."""

    def attacked_classes(self) -> list[int]:
        """Return all classes but the target."""
        return [label for label in range(self.num_classes) if label != self.target_class]


class AllToAll(LabelMap):
    """Every class becomes the next one, the last becomes the first (Gu et al. 2017)."""

    def attacked_classes(self) -> list[int]:
        """Return all classes."""
        return list(range(self.num_classes))

    def relabel(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the next class of each label."""
        return (labels + 1) % self.num_classes


class Untargeted(AllToAll):
    """Every class becomes some wrong one, drawn anew for each image."""

    def relabel(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a random wrong label for each image."""
        shift = torch.randint(1, self.num_classes, labels.shape, generator=generator)
        return (labels + shift) % self.num_classes

    def succeeded(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return whether the prediction is wrong."""
        return predictions != labels


LABEL_MAPS: Final[Mapping[str, type[LabelMap]]] = {
    "source_specific": SourceSpecific,
    "all_to_one": AllToOne,
    "all_to_all": AllToAll,
    "untargeted": Untargeted,
}
