"""What the process that scores does beforehand, so that no child of it does it again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from litmus.detectors import Detector
from litmus.detectors.effort import Effort
from litmus.errors import DataError, LitmusError, MissingExtraError, UsageError
from litmus.formats.pictures import load_pictures
from litmus.models import InputSpec
from litmus.scanning.child import OPTIONS, score_file

_SHARE: Final = 0.9
"""Of a file's time, for what takes gradients."""

__all__ = [
    "import_client",
    "import_gradients",
    "import_onnx",
    "import_torch",
    "made_ready",
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


def made_ready(
    detectors: Mapping[str, Detector], effort: Effort, images: str | None, wall_seconds: float
) -> dict[str, Detector]:
    """Return detectors with the parts that an effort asks, and the user's images.

    Their parts give up before `wall_seconds` are over, so that the others' answer is not lost.
    Pictures without labels will do for some parts; a part that needs them by class goes without
    where they do not fit. Raises DataError where no detector has a use for the images.
    """
    seconds = _SHARE * wall_seconds
    made = {name: each.at_effort(effort, seconds=seconds) for name, each in detectors.items()}
    if images is None:
        return made
    faults: list[LitmusError] = []
    used = set()
    for name, detector in detectors.items():
        labelled = detector.at_effort(effort, images=True, seconds=seconds)
        for give, to in ((_with_classes, labelled), (_with_pictures, None)):
            try:
                given = give(to or made[name], images)
            except (DataError, UsageError, MissingExtraError) as fault:
                faults.append(fault)
                continue
            if given is not None:
                made[name] = given
                used.add(name)
    if not used:
        raise (
            faults[0]
            if faults
            else DataError(
                "no detector has a use for these images",
                expected="one with a trigger search",
                where=images,
            )
        )
    return made


def _with_classes(detector: Detector, images: str) -> Detector | None:
    """Return a detector with clean images by class; None where it asks for none."""
    if not detector.lacks_images:
        return None
    if find_spec("torch") is None:
        raise MissingExtraError(
            "images by class need PyTorch", expected="pip install 'litmus-patterns[train]'"
        )
    import_torch(None)  # with one thread, so that forking stays sound
    from litmus.datasets.clean import load_clean_images

    return detector.with_images(load_clean_images(images, detector.input_spec))


def _with_pictures(detector: Detector, images: str) -> Detector | None:
    """Return a detector with pictures of no class; None where it takes none, or no folder is."""
    if not (detector.wants_pictures and Path(images).is_dir()):
        return None
    return detector.with_pictures(load_pictures(images, detector.input_spec))


def import_gradients(small_model: int, *, needs_torch: bool) -> None:
    """Take the gradients of a small model: what that imports, a confined child could not."""
    import onnx.inliner
    import onnx.version_converter  # noqa: F401

    from litmus.formats import onnx_file
    from litmus.inversion import forms, search

    model = onnx_file.load(Path(f"/dev/fd/{small_model}"))
    spec = model.input_spec
    blank = np.zeros((spec.num_classes, 1, *spec.image_shape), np.float32)
    settings = search.SearchSettings(rungs=((1, 1),), finalists=1, pairs=1, views=1)
    gradients = model.gradients()
    bank = search.make_bank(gradients, list(blank), list(blank), settings)
    form = forms.Form(kind="blend", strength=0.1)
    search.search_form(gradients, bank, form, settings)
    if needs_torch and find_spec("torch") is not None:
        import_torch_gradients()


def import_torch_gradients() -> None:
    """Import what PyTorch takes gradients with."""
    from torch import nn

    from litmus.formats.torch_gradients import TorchGradients

    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    spec = InputSpec(channels=1, height=1, width=1, num_classes=2)
    blank = np.zeros((1, *spec.image_shape), np.float32)
    TorchGradients(network, spec).descend(blank, np.zeros(1, np.int64))


def rehearsal(spec: InputSpec) -> int:
    """Return a file without a name: a network of one layer for images of this shape."""
    from onnx import TensorProto, helper

    shape, k = spec.image_shape, spec.num_classes
    weight = helper.make_tensor("w", TensorProto.FLOAT, [shape[0], k], np.eye(shape[0], k).ravel())
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
    quick = {name: each for name, each in detectors.items() if not each.needs_gradients}
    json.dumps(score_file(request, {n: each.at_effort("quick") for n, each in quick.items()}))
