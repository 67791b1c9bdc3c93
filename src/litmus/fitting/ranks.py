"""A fit in several processes: each holds a share of the models, and all take the same steps.

The processes are those of `torchrun`, one a GPU or a few a machine. Each computes its own models'
answers; all of them get all answers, take the same step of the head, and add up the gradients of
the patterns. Nothing else of a fit knows of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from litmus.artifacts import canonical_json
from litmus.errors import UsageError
from litmus.fitting.dropout import activation_shapes
from litmus.fitting.sources import Draw, Network, Read, Source, prepared
from litmus.zoo.spec import ModelSpec

__all__ = ["Ranks", "Shares"]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Return this process's, inside `joined`; elsewhere, it is alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Ranks]:
        """Join the processes that `torchrun` started, if it started this one.

        Gradients and answers are small, so that they go over gloo, from GPUs, too.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls()
            return
        dist.init_process_group("gloo")
        try:
            yield cls.current()
        finally:
            dist.destroy_process_group()

    def own(self, count: int) -> range:
        """Return this process's share of so many positions."""
        return range(self.rank, count, self.size)


class Shares(Source):
    """All models of a zoo, of which this process holds `own`: every `ranks.size`-th.

    All processes have to ask for the same answers in the same order. What model dropout draws for
    a model does not depend on who holds it, so that results differ from those of one process by
    rounding alone.
    """

    def __init__(self, own: Source, specs: Sequence[ModelSpec], ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks
        self._classes = specs[0].input_spec.num_classes
        known = {_kind(spec): spec for spec in specs}
        shapes = {kind: _activation_shapes(spec) for kind, spec in known.items()}
        self._shapes = [shapes[_kind(spec)] for spec in specs]

    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Refuse: no process has all of them."""
        raise UsageError("one of several processes has only a share of the networks")

    def thinned_answers(
        self, patterns: torch.Tensor, index: Sequence[int], read: Read, draw: Draw | None
    ) -> torch.Tensor:
        """Return float64 (len(index), m, k), on all processes; gradients flow to the patterns."""
        ranks = self._ranks
        shared = _SumOfGradients.apply(patterns)  # type: ignore[no-untyped-call]
        owners = [place % ranks.size for place in index]
        own = [place // ranks.size for place in index if place % ranks.size == ranks.rank]
        own_draw: Draw | None = None
        if draw is not None:
            # For all models in their order, so that each is thinned as in one process.
            drawn = [draw(self._shapes[place]) for place in index]
            masks = (m for m, owner in zip(drawn, owners, strict=True) if owner == ranks.rank)
            own_draw = lambda shapes: next(masks)  # noqa: E731
        mine = torch.zeros(0, len(patterns), self._classes, dtype=torch.float64)
        if own:
            mine = self._own.thinned_answers(shared, own, read, own_draw)
        # Every process takes part in the backward pass, also one that holds none of these models.
        mine = mine + 0 * shared.double().sum()
        gathered: torch.Tensor = _Gathered.apply(mine, owners, ranks)  # type: ignore[no-untyped-call]
        return gathered


class _SumOfGradients(torch.autograd.Function):
    """The identity; its gradient is the sum over all processes."""

    @staticmethod
    def forward(ctx: Any, patterns: torch.Tensor) -> torch.Tensor:
        return patterns.view_as(patterns)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gathered(torch.autograd.Function):
    """Every process's answers in the order of `owners`; the gradient is that of one's own."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, owners: list[int], ranks: Ranks) -> torch.Tensor:
        ctx.own = [place for place, owner in enumerate(owners) if owner == ranks.rank]
        longest = max(map(owners.count, range(ranks.size)))
        padded = mine.new_zeros(longest, *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(ranks.size)]
        dist.all_gather(parts, padded)
        unread = [iter(part) for part in parts]
        return torch.stack([next(unread[owner]) for owner in owners])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient[ctx.own], None, None


def _kind(spec: ModelSpec) -> str:
    return canonical_json(dict(spec.architecture))


def _activation_shapes(spec: ModelSpec) -> list[torch.Size]:
    module = prepared(spec.build_architecture().build(spec.input_spec, seed=0))
    return activation_shapes(module, torch.zeros(1, *spec.input_spec.image_shape))
