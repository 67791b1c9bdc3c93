"""Zoo models as differentiable functions of their input."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litmus.fitting.dropout import ModelDropout
from litmus.fitting.ranks import Ranks, Shares
from litmus.fitting.sources import Held, Read, Source, Streamed, prepared
from litmus.formats import zoo_file
from litmus.models import LOG_FLOOR
from litmus.zoo import ZooEntry

__all__ = ["ModelDropout", "Population", "canonical"]


class Population:
    """Networks with BatchNorm folded and weights frozen, and which of them are backdoored.

    `twin` (n,) numbers the pairs of a backdoored model and its control; by default each model is
    alone. `group` (n,) numbers the families of architectures; by default there is one. `places`
    (n,) are the networks' positions in `source`.
    """

    def __init__(
        self,
        source: Source | Sequence[nn.Module],
        backdoored: NDArray[np.bool_],
        twin: NDArray[np.int64] | None = None,
        group: NDArray[np.int64] | None = None,
        places: NDArray[np.int64] | None = None,
    ) -> None:
        self.source = source if isinstance(source, Source) else Held(source)
        count = len(backdoored)
        self._places = np.arange(count) if places is None else places
        self.backdoored = torch.from_numpy(backdoored.astype(np.int64))
        self.twin = torch.from_numpy(np.arange(count) if twin is None else twin)
        self.group = torch.from_numpy(np.zeros(count, np.int64) if group is None else group)

    @classmethod
    def load(
        cls,
        entries: Sequence[ZooEntry],
        *,
        memory: int | None = None,
        device: str = "cpu",
        ranks: Ranks | None = None,
    ) -> Population:
        """Read the models of a zoo; raises ModelError where a file is damaged.

        Where their files have more than `memory` bytes together (by default half of the machine's),
        they are streamed (see `Streamed`), with the same results. Of several processes, `ranks`,
        each reads its share of the models. They are computed on `device`.
        """
        ranks = ranks or Ranks()
        own = [entries[place] for place in ranks.own(len(entries))]
        modules = (prepared(zoo_file.load(entry.path).torch_module()) for entry in own)
        limit = _half_of_memory() if memory is None else memory
        streams = sum(entry.path.stat().st_size for entry in own) > limit
        source: Source = (Streamed if streams else Held)(modules, device)
        if ranks.size > 1:
            source = Shares(source, [entry.spec for entry in entries], ranks)
        _, group = np.unique([entry.architecture for entry in entries], return_inverse=True)
        return cls(
            source,
            np.array([entry.backdoored for entry in entries]),
            np.array([entry.spec.twin for entry in entries]),
            group.astype(np.int64),
        )

    @classmethod
    def prepared(
        cls,
        modules: Sequence[nn.Module],
        backdoored: NDArray[np.bool_],
        twin: NDArray[np.int64] | None = None,
        group: NDArray[np.int64] | None = None,
    ) -> Population:
        """Make networks ready, in place: BatchNorm folded, weights frozen, dropout at hand."""
        return cls([prepared(module) for module in modules], backdoored, twin, group)

    def __len__(self) -> int:
        return len(self._places)

    def subset(self, index: NDArray[np.int64]) -> Population:
        """Return the models at these positions; they share memory with this population's."""
        return Population(
            self.source,
            self.backdoored.numpy()[index],
            self.twin.numpy()[index],
            self.group.numpy()[index],
            self._places[index],
        )

    def twins(self) -> list[list[int]]:
        """Return the positions of each twin's models."""
        members: dict[int, list[int]] = {}
        for place, twin in enumerate(self.twin.tolist()):
            members.setdefault(twin, []).append(place)
        return list(members.values())

    def answers(self, patterns: torch.Tensor, index: Sequence[int], read: Read) -> torch.Tensor:
        """Return float64 (len(index), m, k): what the models answer to patterns (m, c, h, w).

        `read` turns logits into features; gradients flow back to the patterns.
        """
        return self.source.answers(patterns, self._places[list(index)].tolist(), read)


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def canonical(logits: torch.Tensor) -> torch.Tensor:
    """Floored log-probabilities in float64, as `litmus.models.log_probabilities` has them."""
    log_softmax = torch.log_softmax(logits.double(), dim=-1)
    return torch.logaddexp(log_softmax, log_softmax.new_tensor(LOG_FLOOR))
