"""What the process that scores does beforehand, so that no child of it does it again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping

from litmus.detectors import Detector
from litmus.models import InputSpec
from litmus.scanning.child import score_file

__all__ = ["import_onnx", "import_torch", "rehearsal", "rehearse"]


def import_onnx() -> None:
    """Import what reads and runs ONNX, without onnxruntime's reports to its maker."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnx.helper  # noqa: F401
    import onnxruntime  # noqa: F401


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
    request = {"path": f"/dev/fd/{rehearsal}", "format": "onnx", "preprocessing": {}}
    json.dumps(score_file(request, detectors))
