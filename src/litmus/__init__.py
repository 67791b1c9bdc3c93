"""Litmus tells, from the model file alone, whether an image classifier carries a backdoor.

    import litmus

    for result in litmus.scan(["model.onnx"]):
        print(result)

The names below are imported when they are first used, so that a scan loads no more than it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from litmus.detectors import fit, load_detector
    from litmus.errors import LitmusError
    from litmus.evaluation import evaluate
    from litmus.formats.torch_model import TorchModel
    from litmus.models import InputSpec
    from litmus.scanning import Failed, Scored, Skipped, scan
    from litmus.zoo import Zoo, build_zoo, load_recipe

__version__ = "0.1.0"

__all__ = [
    "Failed",
    "InputSpec",
    "LitmusError",
    "Scored",
    "Skipped",
    "TorchModel",
    "Zoo",
    "__version__",
    "build_zoo",
    "evaluate",
    "fit",
    "load_detector",
    "load_recipe",
    "scan",
]

_HOMES: Final = {
    "Failed": "litmus.scanning",
    "InputSpec": "litmus.models",
    "LitmusError": "litmus.errors",
    "Scored": "litmus.scanning",
    "Skipped": "litmus.scanning",
    "TorchModel": "litmus.formats.torch_model",
    "Zoo": "litmus.zoo",
    "build_zoo": "litmus.zoo",
    "evaluate": "litmus.evaluation",
    "fit": "litmus.detectors",
    "load_detector": "litmus.detectors",
    "load_recipe": "litmus.zoo",
    "scan": "litmus.scanning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'litmus' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
