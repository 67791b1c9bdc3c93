"""Where a population's networks are while it is fitted on: in memory, or in a file on disk."""

from __future__ import annotations

import copy
import os
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Final

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from litmus.architectures import ACTIVATIONS, fold_batch_norm
from litmus.fitting.dropout import thin_if_asked

__all__ = ["Held", "Network", "Read", "Source", "Streamed", "prepared"]

Network = Callable[[torch.Tensor], torch.Tensor]
"""Logits (m, k) of patterns (m, c, h, w)."""
Read = Callable[[torch.Tensor], torch.Tensor]
"""Logits to float64 features of the same shape."""

_ACTIVATIONS: Final = tuple(ACTIVATIONS.values())
_SHARD: Final = 16
"""Models that are read at a time, while those before them are at work."""


def prepared(module: nn.Module) -> nn.Module:
    """Make a network ready, in place: BatchNorm folded, weights frozen, model dropout at hand."""
    ready = fold_batch_norm(module.eval())
    ready.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in ready.modules():
        if isinstance(layer, _ACTIVATIONS):
            layer.register_forward_hook(thin_if_asked)
    return ready


class Source(ABC):
    """Networks by position."""

    device = "cpu"

    @abstractmethod
    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Yield the networks at these positions; each is good until the thread asks the next."""

    def answers(self, patterns: torch.Tensor, index: Sequence[int], read: Read) -> torch.Tensor:
        """Return float64 (len(index), m, k) on the CPU; gradients flow back to the patterns."""
        batch = patterns.to(self.device).contiguous(memory_format=torch.channels_last)
        return torch.stack([read(network(batch)) for network in self.networks(index)]).cpu()


class Held(Source):
    """Networks in memory, as `prepared` makes them."""

    def __init__(self, modules: Iterable[nn.Module], device: str = "cpu") -> None:
        self.device = device
        self._modules = [module.to(device) for module in modules]

    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Yield the networks at these positions."""
        return (self._modules[place] for place in index)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """Where a network's weights lie in the file, and which of the skeletons they belong to."""

    offset: int
    size: int
    skeleton: int


class Streamed(Source):
    """Networks in a temporary file: memory holds a shard of them, and one of each architecture.

    They are read once from where they come, and folded; a thread then reads ahead by a shard of
    16. The file lies in the folder for temporary files, which `TMPDIR` names, and is gone with the
    object.
    """

    def __init__(self, modules: Iterable[nn.Module], device: str = "cpu") -> None:
        self.device = device
        self._file = tempfile.TemporaryFile(prefix="litmus-")  # noqa: SIM115 - closed with it
        self._records: list[_Record] = []
        self._skeletons: list[nn.Module] = []
        self._own = threading.local()
        known: dict[str, int] = {}
        for module in modules:
            state = _state(module)
            # Folding may go differently for two networks of one architecture.
            kind = repr(module) + repr([(name, t.shape) for name, t in state.items()])
            if kind not in known:
                known[kind] = len(self._skeletons)
                self._skeletons.append(copy.deepcopy(module))
            content = torch.cat([t.flatten() for t in state.values()]).numpy().tobytes()
            place = _Record(offset=self._file.tell(), size=len(content), skeleton=known[kind])
            self._file.write(content)
            self._records.append(place)
        self._file.flush()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="litmus-reader")
        weakref.finalize(self, _close, self._file, self._reader)

    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Yield the networks at these positions."""
        shards = [index[start : start + _SHARD] for start in range(0, len(index), _SHARD)]
        ahead = self._ask(shards[0]) if shards else None
        for shard, following in zip(shards, [*shards[1:], None], strict=True):
            assert ahead is not None
            contents = ahead.result()
            ahead = None if following is None else self._ask(following)
            for place, content in zip(shard, contents, strict=True):
                yield self._network(self._records[place].skeleton, content)

    def _ask(self, shard: Sequence[int]) -> Future[list[bytearray]]:
        return self._reader.submit(lambda: [self._content(place) for place in shard])

    def _content(self, place: int) -> bytearray:
        record = self._records[place]
        content = bytearray(record.size)
        if os.preadv(self._file.fileno(), [content], record.offset) != record.size:
            raise OSError("the file of streamed models is cut short")
        return content

    def _network(self, skeleton: int, content: bytearray) -> Network:
        module = self._skeleton(skeleton)
        flat = torch.from_numpy(np.frombuffer(content, dtype=np.float32))
        state = {}
        start = 0
        for name, like in _state(module).items():
            part = flat[start : start + like.numel()].view(like.shape)
            # In its layout, and at an aligned address: networks in memory are rounded alike.
            state[name] = torch.empty_like(like).copy_(part)
            start += like.numel()

        def network(patterns: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = functional_call(module, state, (patterns,))
            return logits

        return network

    def _skeleton(self, place: int) -> nn.Module:
        """Each thread has its own: a call puts weights into it for a moment."""
        if not hasattr(self._own, "skeletons"):
            self._own.skeletons = {}
        own: dict[int, nn.Module] = self._own.skeletons
        if place not in own:
            own[place] = copy.deepcopy(self._skeletons[place]).to(self.device)
        return own[place]


def _close(file: IO[bytes], reader: ThreadPoolExecutor) -> None:
    reader.shutdown(wait=False, cancel_futures=True)
    file.close()


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    """What a network computes with: all of its state but counters of steps."""
    return {name: t for name, t in module.state_dict().items() if t.is_floating_point()}
