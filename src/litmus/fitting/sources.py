"""Where a population's networks are while it is fitted on: in memory, or in a file on disk."""

from __future__ import annotations

import copy
import os
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from litmus.architectures import ACTIVATIONS, fold_batch_norm
from litmus.architectures.stacking import SharedStack, Stack
from litmus.errors import UsageError
from litmus.fitting.dropout import ModelDropout, activation_shapes, thin_if_asked, thinned

__all__ = ["Draw", "Held", "Network", "Read", "Source", "Streamed", "prepared"]

Read = Callable[[torch.Tensor], torch.Tensor]
"""Logits to float64 features of the same shape."""
Draw = Callable[[Sequence[torch.Size]], list[torch.Tensor]]
"""Shapes of a model's activations to what thins them, as `ModelDropout.draw` returns it."""

_ACTIVATIONS: Final = tuple(ACTIVATIONS.values())
_SHARD: Final = 16
"""Models that are asked at a time, and read while those before them are at work."""
_SMALL: Final = 2_000_000
"""Floating-point operations for one image: on a CPU, stacks of larger networks may well be slower,
and so are those without convolutions, whose weights take longer to copy than to use. `fit_bench`
tells."""


def prepared(module: nn.Module) -> nn.Module:
    """Make a network ready, in place: BatchNorm folded, weights frozen, model dropout at hand."""
    ready = fold_batch_norm(module.eval())
    ready.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in ready.modules():
        if isinstance(layer, _ACTIVATIONS):
            layer.register_forward_hook(thin_if_asked)
    return ready


@dataclass(frozen=True, kw_only=True)
class Network:
    """A prepared network: its architecture's number in its source, a module, and its weights.

    The module has the weights itself where `state` is None.
    """

    kind: int
    module: nn.Module
    state: Mapping[str, torch.Tensor] | None = None

    def __call__(self, patterns: torch.Tensor) -> torch.Tensor:
        """Return logits (m, k) of patterns (m, c, h, w)."""
        if self.state is None:
            logits: torch.Tensor = self.module(patterns)
        else:
            logits = functional_call(self.module, dict(self.state), (patterns,))
        return logits

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Return what it computes with, by name."""
        return _state(self.module) if self.state is None else self.state


class Source(ABC):
    """Networks by position.

    They are asked in chunks, those of one architecture as one stack where that is faster. Which
    way is taken depends on the networks and the device alone.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._facts: dict[int, _Facts] = {}
        self._threads = threading.local()

    @abstractmethod
    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Yield the networks at these positions."""

    def answers(self, patterns: torch.Tensor, index: Sequence[int], read: Read) -> torch.Tensor:
        """Return float64 (len(index), m, k) on the CPU; gradients flow back to the patterns.

        Inside a `ModelDropout`, the networks are thinned.
        """
        dropout = ModelDropout.active()
        return self.thinned_answers(patterns, index, read, dropout.draw if dropout else None)

    def thinned_answers(
        self, patterns: torch.Tensor, index: Sequence[int], read: Read, draw: Draw | None
    ) -> torch.Tensor:
        """Return `answers`, of networks thinned by what `draw` returns for one after the other."""
        # `contiguous` would leave the strides of grey images, and with them all maps would have
        # their channels first.
        batch = torch.empty(
            patterns.shape, device=self.device, memory_format=torch.channels_last
        ).copy_(patterns)
        networks = self.networks(index)
        found: list[torch.Tensor] = []
        while chunk := list(islice(networks, _SHARD)):
            found += [read(logits) for logits in self._logits(batch, chunk, draw)]
        return torch.stack(found).cpu()

    def _logits(
        self, batch: torch.Tensor, chunk: Sequence[Network], draw: Draw | None
    ) -> list[torch.Tensor]:
        masks: list[list[torch.Tensor] | None] = [None] * len(chunk)
        if draw is not None:  # model by model, whatever is computed together
            masks = [draw(self._about(each, batch).shapes) for each in chunk]
        groups: dict[int, list[int]] = {}
        for place, network in enumerate(chunk):
            # What is asked alone has a group of its own.
            stacks = self._about(network, batch).stacks
            groups.setdefault(network.kind if stacks else -1 - place, []).append(place)
        found: dict[int, torch.Tensor] = {}
        for group in groups.values():
            networks = [chunk[place] for place in group]
            asked = networks[0] if len(group) == 1 else self._stacked(networks)
            with _thinned([masks[place] for place in group]):
                logits = asked(batch)
            rows = logits[None] if len(group) == 1 else logits
            found |= dict(zip(group, rows, strict=True))
        return [found[place] for place in range(len(chunk))]

    def _stacked(self, networks: Sequence[Network]) -> Network:
        """Return networks of one kind as one that gives logits (G, m, k).

        Each thread has its own stacks: a call puts weights into one for a moment.
        """
        own: dict[tuple[int, int], SharedStack] = self._threads.__dict__.setdefault("stacks", {})
        kind, size = networks[0].kind, len(networks)
        if (kind, size) not in own:
            stack = SharedStack([networks[0].module] * size)
            own[kind, size] = stack.to("meta")  # each call brings its weights
        states = [network.weights() for network in networks]
        state = {f"network.{name}": torch.stack([s[name] for s in states]) for name in states[0]}
        return Network(kind=kind, module=own[kind, size], state=state)

    def _about(self, network: Network, batch: torch.Tensor) -> _Facts:
        if network.kind not in self._facts:
            self._facts[network.kind] = _Facts.of(network, batch[:1].detach())
        return self._facts[network.kind]


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What is known of an architecture.

    `shapes` are those of its activations, and it `stacks` where a stack is the faster way.
    """

    shapes: list[torch.Size]
    stacks: bool

    @classmethod
    def of(cls, network: Network, image: torch.Tensor) -> _Facts:
        counter = FlopCounterMode(display=False)
        with counter:
            shapes = activation_shapes(network.module, image)
        convolves = any(isinstance(layer, nn.Conv2d) for layer in network.module.modules())
        small = convolves and counter.get_total_flops() <= _SMALL
        # A GPU waits for single calls, whatever is in them.
        faster = image.is_cuda or small
        return cls(shapes=shapes, stacks=faster and _stackable(network.module))


def _stackable(module: nn.Module) -> bool:
    try:
        Stack([module])
    except UsageError:
        return False
    return True


def _thinned(masks: Sequence[list[torch.Tensor] | None]) -> AbstractContextManager[None]:
    """Thin the one network that runs inside, or the stack of so many."""
    known = [each for each in masks if each is not None]
    if not known:
        return nullcontext()
    if len(known) == 1:
        return thinned(known[0])
    # A stack's maps lie side by side in the channels, and behind them is a row a model.
    return thinned(
        [
            torch.cat(each, dim=1) if each[0].dim() == 4 else torch.stack(each)
            for each in zip(*known, strict=True)
        ]
    )


class Held(Source):
    """Networks in memory, as `prepared` makes them."""

    def __init__(self, modules: Iterable[nn.Module], device: str = "cpu") -> None:
        super().__init__(device)
        kinds: dict[str, int] = {}
        self._networks = [
            Network(kind=kinds.setdefault(_kind(module), len(kinds)), module=module.to(device))
            for module in modules
        ]

    def networks(self, index: Sequence[int]) -> Iterator[Network]:
        """Yield the networks at these positions."""
        return (self._networks[place] for place in index)


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
        super().__init__(device)
        self._file = tempfile.TemporaryFile(prefix="litmus-")  # noqa: SIM115 - closed with it
        self._records: list[_Record] = []
        self._skeletons: list[nn.Module] = []
        self._own = threading.local()
        known: dict[str, int] = {}
        for module in modules:
            state = _state(module)
            kind = _kind(module)
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
        return Network(kind=skeleton, module=module, state=state)

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


def _kind(module: nn.Module) -> str:
    """What networks have in common that can be one stack: folding may go differently for two."""
    return repr(module) + repr([(name, t.shape) for name, t in _state(module).items()])
