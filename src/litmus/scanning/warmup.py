"""What the process that scores does beforehand, so that no child of it does it again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from typing import Final

from litmus.detectors import Detector
from litmus.errors import DataError, UsageError
from litmus.models import InputSpec
from litmus.scanning.child import OPTIONS, score_file

_SHARE: Final = 0.9
"""Of a file's time, for what takes gradients."""

__all__ = [
    "import_client",
    "import_gradients",
    "import_onnx",
    "import_torch",
    "made_thorough",
    "rehearsal",
    "rehearse",
]


def import_onnx() -> None:
    """Import what reads and runs ONNX, without onnxruntime's reports to its maker."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnx.helper  # noqa: F401
    import onnxruntime  # noqa: F401


def import_client() -> None:
    """Import what asks servers, with all that it would import on the way."""
    import codecs
    import ssl

    import litmus.scanning.served  # noqa: F401

    codecs.lookup("idna")  # of a host's name
    ssl.create_default_context()


def import_torch(architecture: str | None) -> None:
    """Import what builds networks; without PyTorch each file will say that it is missing.

    Raises RecipeError where `architecture` is none of ours or has an impossible option. Code of
    the user's own is imported in children alone.
    """
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    import litmus.formats.state_dict

    if architecture is not None:
        litmus.formats.state_dict.check_stated(architecture)


def made_thorough(
    detectors: Mapping[str, Detector], images: str | None, wall_seconds: float
) -> dict[str, Detector]:
    """Import what takes gradients; return detectors with all their parts, and clean images.

    Their parts give up before `wall_seconds` are over, so that the others' answer is not lost. A
    detector that these images do not fit goes without. Raises DataError where they fit none.
    """
    from litmus.datasets.clean import load_clean_images

    import_gradients()
    seconds = _SHARE * wall_seconds
    made, faults = {}, []
    for name, detector in detectors.items():
        made[name] = detector.thorough(images=images is not None, seconds=seconds)
        if images is None or not made[name].lacks_images:
            continue
        try:
            clean = load_clean_images(images, detector.input_spec)
            made[name] = made[name].with_images(clean)
        except (DataError, UsageError) as fault:
            made[name] = detector.thorough(seconds=seconds)
            faults.append(fault)
    if faults and len(faults) == len(made):
        raise faults[0]
    return made


def import_gradients() -> None:
    """Import what converts a graph to PyTorch and what optimises images."""
    from torch import nn

    import litmus.formats.onnx_torch  # noqa: F401
    from litmus.formats.onnx_operators import load_onnx2torch
    from litmus.inversion import MarginSettings, maximum_margins

    load_onnx2torch()
    # An optimiser's first step imports a third of PyTorch.
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    spec = InputSpec(channels=1, height=1, width=1, num_classes=2)
    maximum_margins(network, spec, MarginSettings(steps=1, starts=1))


def rehearsal(spec: InputSpec) -> int:
    """Return a file without a name: a network of one layer for images of this shape."""
    from onnx import TensorProto, helper

    shape, k = spec.image_shape, spec.num_classes
    weight = helper.make_tensor("w", TensorProto.FLOAT, [shape[0], k], [0.0] * (shape[0] * k))
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", k])
    graph = helper.make_graph(nodes, "rehearsal", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with tempfile.TemporaryFile() as file:
        file.write(model.SerializeToString())
        file.flush()
        return os.dup(file.fileno())


def rehearse(rehearsal: int, detectors: Mapping[str, Detector]) -> None:
    """Score the small model, so that nothing is done for the first time after this."""
    path = f"/dev/fd/{rehearsal}"
    request = {**OPTIONS, "path": path, "format": "onnx"}
    json.dumps(score_file(request, detectors))
