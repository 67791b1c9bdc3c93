"""What the attacks have in common that do the same to every image, drawn from an index."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Final

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from litmus.attacks.base import Attack
from litmus.schema import STRICT

__all__ = ["DrawnAttack", "Effect"]

Effect = Callable[[torch.Tensor], torch.Tensor]
"""From uint8 images (n, c, h, w) to new ones with the trigger."""

# Images in floating point take four times the memory, so few are so at once.
_BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DrawnAttack(Attack):
    """An attack whose trigger is number `index` of the set that `seed` draws, for all images.

    A subclass gives its `stem`, the `letters` that stand for its options in a trigger's name,
    and its `effect`.
    """

    letters: ClassVar[Mapping[str, str]] = {}

    index: Annotated[int, Field(ge=0)]
    seed: int = 0

    @property
    @abstractmethod
    def stem(self) -> str:
        """The name of its triggers and of the streams that draw them, before the index."""

    @property
    def stream(self) -> str:
        """The name from which everything about the trigger is drawn."""
        return f"litmus {self.stem} {self.seed} {self.index}"

    @property
    def trigger_id(self) -> str:
        """Stem and index, such as `wanet-3`; options are added where they are not the default."""
        extra = [
            f"{letter}{getattr(self, name)}".removesuffix(".0")
            for letter, name in [*self.letters.items(), ("set", "seed")]
            if getattr(self, name) != getattr(type(self), name)
        ]
        return "-".join([self.stem, str(self.index), *extra])

    @abstractmethod
    def effect(self, channels: int, height: int, width: int) -> Effect:
        """Return what the trigger does to images of this shape, without changing its input."""

    def stamp(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return uint8 images (n, c, h, w), each with the trigger; the generator is not used."""
        _, channels, height, width = images.shape
        effect = self.effect(channels, height, width)
        return torch.cat([effect(batch) for batch in torch.split(images, _BATCH)])
