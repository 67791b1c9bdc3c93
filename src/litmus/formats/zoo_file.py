"""Zoo files: safetensors weights with a header that says which network they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from litmus.artifacts import parse_tensors
from litmus.errors import MissingExtraError, ModelError, RecipeError
from litmus.formats.torch_model import TorchModel
from litmus.models import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "ZOO_FORMAT",
    "ZooModel",
    "is_step_counter",
    "load",
    "module_from",
    "saved_weights",
    "step_counters",
]

ZOO_FORMAT: Final = "litmus-zoo-model"


class ZooModel(TorchModel):
    """A model of a zoo, ready to run; it returns logits."""

    def __init__(self, header: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
        self.header = header
        self.classes = tuple(map(str, header.get("class_names", ())))
        self._weights = weights
        spec = header["spec"]
        super().__init__(module_from(spec, weights), InputSpec.from_json(spec["input_spec"]))

    def weights(self) -> Mapping[str, NDArray[Any]]:
        """Return the weights by name."""
        return self._weights


def load(path: Path) -> ZooModel:
    """Read and check a zoo file; raises ModelError where it is damaged."""
    try:
        arrays, header = parse_tensors(path.read_bytes(), path, ModelError)
    except OSError as fault:
        raise ModelError(f"can't be read: {fault.strerror}", where=path) from fault
    if header.get("format") != ZOO_FORMAT:
        raise ModelError("not a zoo model", got=header.get("format"), where=path)
    try:
        return ZooModel(header, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError, RecipeError) as fault:
        raise ModelError(f"header and weights do not fit: {fault}", where=path) from fault


def module_from(spec: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Return the network of a model's spec with these weights, in evaluation mode."""
    try:
        import torch
    except ImportError as fault:
        raise MissingExtraError(
            "zoo files need PyTorch", expected="pip install 'litmus-patterns[train]'"
        ) from fault
    from litmus.architectures import ARCHITECTURES
    from litmus.schema import named_from_table

    architecture = named_from_table(
        ARCHITECTURES, spec["architecture"], "architecture", "architecture"
    )
    module = architecture.skeleton(InputSpec.from_json(spec["input_spec"]))
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    # BatchNorm's step counters are not saved: they would tell how long a model was trained.
    module.load_state_dict(state | step_counters(module), assign=True)
    return module.requires_grad_(False)


def saved_weights(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Return what a zoo file holds of a network's state."""
    state = module.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items() if not is_step_counter(name)}


def step_counters(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return zeros for the steps that a network's BatchNorms have counted, by name."""
    import torch

    zero = torch.zeros((), dtype=torch.int64)
    return {name: zero.clone() for name in module.state_dict() if is_step_counter(name)}


def is_step_counter(name: str) -> bool:
    """Return whether a name in a state dict is that of the steps which a BatchNorm counted."""
    return name.endswith("num_batches_tracked")
