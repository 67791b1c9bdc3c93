"""What happens to one file in the process that was forked for it: load, pick, measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from litmus.detectors import Detector
from litmus.errors import LitmusError, MissingExtraError, ShapeError, UnsupportedModelError
from litmus.formats import FORMATS
from litmus.formats.preprocessing import Preprocessing
from litmus.formats.resizing import ResizedModel, may_resize
from litmus.formats.stated_network import StatedNetwork
from litmus.models import InputSpec, Model
from litmus.scanning.targets import SERVED

__all__ = ["OPTIONS", "score_file"]

OPTIONS: Final[Mapping[str, Any]] = {
    "preprocessing": {},
    "architecture": None,
    "trust_code": False,
    "resize": False,
}
"""What a request says of how a file is scored, as where nothing was asked for."""


def score_file(
    request: Mapping[str, Any],
    detectors: Mapping[str, Detector],
    *,
    memory_mib: float = math.inf,
) -> dict[str, object]:
    """Score one file by the first detector of its shape; what goes wrong is an answer, too.

    The request is a file's `path` and `format`, and what `OPTIONS` names.
    """
    path = request["path"]

    def told() -> dict[str, object]:
        load = _loader(Path(path), request)
        return _score_model(load, request, detectors)

    return _answer_of(told, path, memory_mib=memory_mib)


def _answer_of(
    told: Callable[[], dict[str, object]], where: str, *, memory_mib: float = math.inf
) -> dict[str, object]:
    """Return what a model's process tells, or what went wrong on the way."""
    try:
        return told()
    except (UnsupportedModelError, MissingExtraError) as fault:
        return {"status": "skipped", "reason": _without_path(str(fault), where)}
    except LitmusError as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": _without_path(str(fault), where)}
    except MemoryError:
        pass
    except Exception as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": f"{type(fault).__name__}: {fault}"[:1000]}
    error = f"needs more memory than the limit of {memory_mib:g} MiB"
    return {"status": "failed", "error": error}


def _score_model(
    load: Callable[..., Model], request: Mapping[str, Any], detectors: Mapping[str, Detector]
) -> dict[str, object]:
    """Load a model, and score it by the first detector of its shape; raises LitmusError.

    `load(expected=shape)` settles what the model leaves open, `load()` goes without.
    """
    started = time.perf_counter()
    model = _load(load, _shapes(detectors))
    loaded = time.perf_counter()
    own_spec = model.input_spec
    fitting = [name for name, each in detectors.items() if each.input_spec == own_spec]
    near = [name for name, each in detectors.items() if may_resize(own_spec, each.input_spec)]
    if not fitting and near and request["resize"]:
        fitting = near[:1]
        model = ResizedModel(model, detectors[near[0]].input_spec)
    if not fitting:
        takes = getattr(model, "takes", str(own_spec))
        return {"status": "unmatched", "takes": takes, "resizable": near}
    detector = detectors[fitting[0]]
    reason = _unfit(model, detector)
    if reason:
        return {"status": "skipped", "reason": reason}
    recognition = detector.recognise(model)
    measured = recognition.model
    measurement = detector.measure(measured)
    return {
        "status": "scored",
        "detector": fitting[0],
        "input_spec": own_spec.to_json(),
        "measurement": measurement.to_json(),
        "notes": [*getattr(measured, "notes", ()), *recognition.notes],
        "out_of_scope": recognition.out_of_scope,
        "classes": list(getattr(measured, "classes", ())),
        "external_files": list(getattr(model, "external_files", ())),
        "load_seconds": loaded - started,
        "measure_seconds": time.perf_counter() - loaded,
    }


def _loader(path: Path, request: Mapping[str, Any]) -> Callable[..., Model]:
    if request["format"] == SERVED:
        from litmus.scanning.served import server_loader

        return server_loader(request)
    preprocessing = Preprocessing.for_model(path, request["preprocessing"])
    text = request["architecture"]
    network = StatedNetwork.parse(text, trust_code=request["trust_code"]) if text else None
    return partial(FORMATS[request["format"]].load, path, preprocessing, architecture=network)


def _shapes(detectors: Mapping[str, Detector]) -> list[InputSpec]:
    return [detector.input_spec for detector in detectors.values()]


def _load(load: Callable[..., Model], shapes: Sequence[InputSpec]) -> Model:
    """Load a model in the first of these shapes that it takes, and else in its own.

    It is loaded again only where it leaves open what shape it takes: a graph may declare any
    height and width and yet run on one alone.
    """
    if not shapes:
        return load()
    model: Model | None = None
    refusals: list[ShapeError] = []
    for shape in dict.fromkeys(shapes):
        if model is not None and not _may_take(model, shape):
            continue
        try:
            model = load(expected=shape)
        except ShapeError as fault:
            refusals.append(fault)
            continue
        if model.input_spec == shape:
            return model
    if model is None:
        raise refusals[0]
    return model


def _may_take(model: Model, shape: InputSpec) -> bool:
    """Whether the file of a loaded model might take another shape, too."""
    ask = getattr(model, "may_take", None)
    return ask is not None and ask(shape)


def _unfit(model: Any, detector: Detector) -> str | None:
    """Why a detector of its shape can't measure a model, or None."""
    needs = {"last_layer": detector.needs_weights, "gradients": detector.needs_gradients}
    for name, needed in needs.items():
        if needed and not hasattr(model, name):
            return f"the detector {detector.name} needs the model's {name}, which it can't give"
    if detector.lacks_images:
        return f"the detector {detector.name} needs clean images by class: scan with --images DIR"
    return None


def _is_out_of_memory(fault: Exception) -> bool:
    """Whether C++ said so: onnxruntime has no exception type for it."""
    text = str(fault)
    return "bad_alloc" in text or "allocate memory" in text or "Cannot allocate" in text


def _without_path(text: str, where: str) -> str:
    """The result names its file already."""
    return text.removeprefix(f"{where}: ")
