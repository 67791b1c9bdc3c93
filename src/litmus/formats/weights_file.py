"""Files that hold weights alone, `.pt`/`.pth` and safetensors; the user says of which network.

The file may be hostile; call it in a child process only.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litmus.errors import MissingExtraError, ModelError, UnsupportedModelError
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.stated_network import StatedNetwork
from litmus.formats.torch_archive import check_weights_only
from litmus.models import InputSpec

if TYPE_CHECKING:
    from litmus.formats.state_dict import StateDictModel

__all__ = ["load_safetensors", "load_torch"]

_SAFE_TORCH: Final = (2, 10)
"""Before, `torch.load(weights_only=True)` could be made to run code (CVE-2026-24747)."""
_EXTRA: Final = "pip install 'litmus-patterns[train]'"


def load_torch(
    path: Path,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None = None,
    architecture: StatedNetwork | None = None,
) -> StateDictModel:
    """Load a state dict, or a checkpoint with one, that `torch.save` wrote.

    Raises UnsupportedModelError where it holds more than weights or `architecture` is missing,
    MissingExtraError without PyTorch 2.10, ModelError and ShapeError as `load_state_dict` does.
    """
    check_weights_only(path, expected)
    network = _stated(architecture, expected, path)
    torch = _torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at rare protocols, for instance
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as fault:  # of many types, for a file that may be anything
        if "allocate memory" in str(fault):
            raise
        text = " ".join(str(fault).split())
        if "Weights only load failed" in text:
            # Without its advice to load the file unsafely.
            cause = text.partition("WeightsUnpickler error: ")[2].partition(" Check the doc")[0]
            raise UnsupportedModelError(
                "PyTorch's safe reader refuses it",
                expected="what torch.save(model.state_dict(), FILE) writes",
                got=cause[:200] or "more than weights",
                where=path,
            ) from fault
        raise ModelError("a damaged PyTorch file", got=text[:300], where=path) from fault
    return _finish(saved, network, preprocessing, expected, path)


def load_safetensors(
    path: Path,
    preprocessing: Preprocessing,
    *,
    expected: InputSpec | None = None,
    architecture: StatedNetwork | None = None,
) -> StateDictModel:
    """Load weights that safetensors wrote; raises as `load_torch` does."""
    network = _stated(architecture, expected, path)
    _torch()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as fault:
        raise ModelError("a damaged safetensors file", got=str(fault)[:300], where=path) from fault
    return _finish(saved, network, preprocessing, expected, path)


def _finish(
    saved: object,
    network: StatedNetwork,
    preprocessing: Preprocessing,
    expected: InputSpec | None,
    path: Path,
) -> StateDictModel:
    from litmus.formats.state_dict import load_state_dict

    return load_state_dict(saved, network, preprocessing, expected=expected, where=path)


def _stated(
    architecture: StatedNetwork | None, expected: InputSpec | None, path: Path
) -> StatedNetwork:
    if architecture is not None:
        return architecture
    shape = ", ".join(map(str, expected.image_shape)) if expected else "C, H, W"
    raise UnsupportedModelError(
        "weights do not say which network they belong to: name it with --architecture, or export "
        f"it to ONNX where it was made: torch.onnx.export(model.eval(), (torch.zeros(1, {shape}),),"
        " 'model.onnx')",
        where=path,
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as fault:
        raise MissingExtraError("weights need PyTorch", expected=_EXTRA) from fault
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _SAFE_TORCH:
        raise MissingExtraError(
            "weights need a PyTorch that reads them safely",
            expected=f"{'.'.join(map(str, _SAFE_TORCH))} or later",
            got=torch.__version__,
        )
    return torch
