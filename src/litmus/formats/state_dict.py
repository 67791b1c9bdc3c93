"""Bare weights and the network that the user says they belong to; needs PyTorch.

The weights may be hostile; call it in a child process only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litmus.architectures import ARCHITECTURES, Architecture
from litmus.errors import ModelError, RecipeError, ShapeError, UnsupportedModelError
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.stated_network import StatedNetwork
from litmus.formats.torch_layers import ChannelsLast
from litmus.formats.torch_model import TorchModel
from litmus.formats.zoo_file import is_step_counter, step_counters
from litmus.models import Images, InputSpec, Outputs, looks_like_probabilities
from litmus.schema import named_from_table

__all__ = ["StateDictModel", "check_stated", "load_state_dict", "weights_of"]

Weights = Mapping[str, torch.Tensor]

# Under these keys a training script keeps the weights beside epochs and optimisers.
_CHECKPOINT_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net")
# What DataParallel and torch.compile put before every name.
_PREFIXES: Final = ("module.", "_orig_mod.")
_SHOWN: Final = 4
_EXAMPLES: Final = 8


class StateDictModel(TorchModel):
    """A network of the user's choice with a file's weights.

    `remarks` tell what was assumed beside the preprocessing; `classes` are the names that the
    sidecar states.
    """

    preprocessing: Preprocessing

    def __init__(
        self,
        module: nn.Module,
        input_spec: InputSpec,
        *,
        outputs: Outputs,
        preprocessing: Preprocessing,
        remarks: Sequence[str],
        classes: tuple[str, ...],
        where: object,
    ) -> None:
        super().__init__(module, input_spec, outputs=outputs, preprocessing=preprocessing)
        self.remarks, self.classes = remarks, classes
        self._where = where

    @property
    def notes(self) -> list[str]:
        """What was stated, found out and assumed."""
        return [*self.preprocessing.notes(self.input_spec.channels), *self.remarks]

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Return the outputs (n, k); raises ModelError where the network fails to run."""
        rows = _run(self._module, self.preprocessing.apply(images), self._where)
        if rows.shape != (len(images), self.input_spec.num_classes):
            raise ModelError(
                "the network returned another shape than before",
                expected=(len(images), self.input_spec.num_classes),
                got=rows.shape,
                where=self._where,
            )
        return rows


def load_state_dict(
    saved: object,
    network: StatedNetwork,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None,
    where: Path,
) -> StateDictModel:
    """Return the stated network with a file's weights, for images of the `expected` spec.

    `saved` is a mapping of tensors, or a checkpoint with one in it. A network of another number
    of classes than expected keeps its own. Raises ModelError, naming the first ones, where keys
    are missing or unexpected; ShapeError where the network does not fit these images;
    UnsupportedModelError where no weights are there or nothing says what images are expected.
    """
    if expected is None:
        raise UnsupportedModelError("weights do not tell the images' size", where=where)
    weights, notes = weights_of(saved, where)
    module, spec = _with_weights(network, weights, expected, where)
    preprocessing.check(spec.channels, where)
    if preprocessing.layout == "nhwc":
        module = ChannelsLast(module)
    module = module.eval().requires_grad_(False)
    rows = _try_out(module, preprocessing, spec, where)
    spec = replace(spec, num_classes=rows.shape[1])
    stated = None if preprocessing.outputs == "auto" else preprocessing.outputs
    outputs = stated or ("probabilities" if looks_like_probabilities(rows) else "logits")
    if stated is None:
        notes.append(f"outputs read as {outputs}, judged by their values")
    size = f"{expected.channels}x{expected.height}x{expected.width}"
    return StateDictModel(
        module,
        spec,
        outputs=outputs,
        preprocessing=preprocessing,
        remarks=[
            f"weights of {network.text}, as stated, for images of the detector's size, {size}",
            *notes,
        ],
        classes=preprocessing.class_names(spec.num_classes, where),
        where=where,
    )


def weights_of(saved: object, where: object) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of a state dict or a checkpoint by name, and what was done to them."""
    notes = []
    if isinstance(saved, Mapping) and not _is_state_dict(saved):
        found = [key for key in _CHECKPOINT_KEYS if _is_state_dict(saved.get(key))]
        if found:
            notes.append(f"weights from the checkpoint's {found[0]!r}")
            saved = saved[found[0]]
    if not _is_state_dict(saved):
        contents = f" of {_listed(saved)}" if isinstance(saved, Mapping) else ""
        raise UnsupportedModelError(
            "no weights in it",
            expected=f"tensors by name, or a checkpoint with {', '.join(_CHECKPOINT_KEYS)}",
            got=f"{type(saved).__name__}{contents}",
            where=where,
        )
    assert isinstance(saved, Mapping)
    weights: dict[str, torch.Tensor] = dict(saved)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
            notes.append(f"{prefix!r} before all names was left out")
    return weights, notes


def check_stated(text: str) -> None:
    """Raise RecipeError where `--architecture` names none of ours, or an impossible option.

    Code of the user's own is not imported here, but will be looked for in this folder, too.
    """
    network = StatedNetwork.parse(text, trust_code=True)
    if network.function is None:
        _ours(network)
    else:
        _search_here()


def _ours(network: StatedNetwork) -> Architecture:
    table = {**network.options, "name": network.name}
    return named_from_table(ARCHITECTURES, table, "--architecture", "architecture")


def _search_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file there replaces nothing that is installed


def _own(network: StatedNetwork) -> nn.Module:
    """Return what code of the user's own makes; raises ModelError where it fails."""
    _search_here()
    try:
        make = getattr(importlib.import_module(network.name), str(network.function))
        module = make(**network.options)
    except Exception as fault:
        raise ModelError(
            f"{network.name}:{network.function} failed: {type(fault).__name__}: {fault}"[:400],
            where="--architecture",
        ) from fault
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{network.name}:{network.function} made no network",
            expected="a torch.nn.Module",
            got=type(module).__name__,
            where="--architecture",
        )
    return module


def _with_weights(
    network: StatedNetwork, weights: Weights, expected: InputSpec, where: object
) -> tuple[nn.Module, InputSpec]:
    if network.function is not None:
        module = _own(network)
        _assign(module, weights, network, where)
        return module, expected
    architecture = _ours(network)
    spec = expected
    try:
        module = architecture.skeleton(expected)
        last = [name for name in module.state_dict() if not is_step_counter(name)]
        stated = weights.get(last[-1])
        if stated is not None and stated.ndim and 0 < len(stated) != expected.num_classes:
            # All of ours end in a layer with one row a class.
            spec = replace(expected, num_classes=len(stated))
            module = architecture.skeleton(spec)
    except RecipeError as fault:  # pooled away, for instance
        raise ShapeError(f"{network.text} can't take {expected}: {fault}", where=where) from fault
    _assign(module, weights, network, where)
    return module, spec


def _assign(module: nn.Module, weights: Weights, network: StatedNetwork, where: object) -> None:
    """Give a network its weights; raises ModelError or ShapeError where they are not its own."""
    wanted, counters = module.state_dict(), step_counters(module)
    weights = {**counters, **{n: t for n, t in weights.items() if not is_step_counter(n)}}
    missing = [name for name in wanted if name not in weights]
    unexpected = sorted(set(weights) - set(wanted))
    if missing or unexpected:
        parts = [f"missing {_some(missing)}"] if missing else []
        parts += [f"unexpected {_some(unexpected)}"] if unexpected else []
        raise ModelError(f"not the weights of {network.text}: {'; '.join(parts)}", where=where)
    other = [name for name in wanted if wanted[name].shape != weights[name].shape]
    if other:
        shapes = [
            f"{name} is {tuple(weights[name].shape)} and not {tuple(wanted[name].shape)}"
            for name in other
        ]
        raise ShapeError(f"weights of another shape than {network.text}'s: {_some(shapes)}",
                         where=where)  # fmt: skip
    plain = {name: _plain(name, weights[name], wanted[name], where) for name in wanted}
    module.load_state_dict(plain, assign=True)


def _plain(name: str, tensor: torch.Tensor, wanted: torch.Tensor, where: object) -> torch.Tensor:
    """Return a tensor in memory of its own, in the type that the network has."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise UnsupportedModelError(
            "weights of an unusual kind",
            expected="dense real tensors",
            got=f"{name}: {tensor.layout}, {tensor.dtype}",
            where=where,
        )
    return tensor.detach().to("cpu", wanted.dtype, copy=True).contiguous()


def _try_out(
    module: nn.Module, preprocessing: Preprocessing, spec: InputSpec, where: object
) -> NDArray[np.float32]:
    """Return what a network says to noise; raises ShapeError where it can't take such images."""
    noise = np.random.default_rng(0).random((_EXAMPLES, *spec.image_shape), dtype=np.float32)
    try:
        rows = _run(module, preprocessing.apply(noise), where)
    except ModelError as fault:
        raise ShapeError(
            fault.what, expected=f"a network for {spec}", got=fault.got, where=where
        ) from fault
    if rows.ndim != 2 or len(rows) != _EXAMPLES:
        raise UnsupportedModelError(
            "not a classifier", expected="outputs (n, classes)", got=rows.shape, where=where
        )
    return rows


def _run(module: nn.Module, images: Images, where: object) -> NDArray[np.float32]:
    try:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
            rows: NDArray[np.float32] = outputs.float().numpy()
    except MemoryError:
        raise
    except Exception as fault:  # a network of the user's own raises whatever it likes
        if "allocate memory" in str(fault):
            raise
        raise ModelError("the network fails to run", got=str(fault)[:300], where=where) from fault
    return rows


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _listed(mapping: Mapping[Any, Any]) -> str:
    return _some([f"{str(key)[:40]} ({type(value).__name__})" for key, value in mapping.items()])


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:150] for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
