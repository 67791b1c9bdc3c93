"""What happens to one file in the process that was forked for it: load, check, measure."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litmus.detectors import Detector
from litmus.errors import LitmusError, MissingExtraError, UnsupportedModelError
from litmus.formats import FORMATS
from litmus.formats.preprocessing import Preprocessing

__all__ = ["score_file"]


def score_file(
    request: Mapping[str, Any], detector: Detector, *, memory_mib: float = math.inf
) -> dict[str, object]:
    """Score one file; what goes wrong comes back as an answer, too."""
    path = request["path"]
    try:
        return _score(Path(path), request, detector)
    except (UnsupportedModelError, MissingExtraError) as fault:
        return {"status": "skipped", "reason": _without_path(str(fault), path)}
    except LitmusError as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": _without_path(str(fault), path)}
    except MemoryError:
        pass
    except Exception as fault:
        if not _is_out_of_memory(fault):
            return {"status": "failed", "error": f"{type(fault).__name__}: {fault}"[:1000]}
    error = f"needs more memory than the limit of {memory_mib:g} MiB"
    return {"status": "failed", "error": error}


def _score(path: Path, request: Mapping[str, Any], detector: Detector) -> dict[str, object]:
    stated = request["preprocessing"]
    preprocessing = Preprocessing.for_model(path, stated)
    started = time.perf_counter()
    model = FORMATS[request["format"]].load(path, preprocessing, expected=detector.input_spec)
    loaded = time.perf_counter()
    reason = _unfit(model, detector)
    if reason:
        return {"status": "skipped", "reason": reason}
    recognition = detector.recognise(model)
    measured = recognition.model
    measurement = detector.measure(measured)
    return {
        "status": "scored",
        # Not `asdict`, which would copy each of some thousand numbers.
        "measurement": vars(measurement),
        "notes": [*getattr(measured, "notes", ()), *recognition.notes],
        "out_of_scope": recognition.out_of_scope,
        "classes": list(getattr(measured, "classes", ())),
        "load_seconds": loaded - started,
        "measure_seconds": time.perf_counter() - loaded,
    }


def _unfit(model: Any, detector: Detector) -> str | None:
    """Why a detector can't measure a model, or None."""
    if model.input_spec != detector.input_spec:
        return f"the model takes {model.input_spec}, the detector {detector.input_spec}"
    needs = {"last_layer": detector.needs_weights, "torch_module": detector.needs_gradients}
    for name, needed in needs.items():
        if needed and not hasattr(model, name):
            return f"the detector {detector.name} needs the model's {name}, which it can't give"
    if detector.needs_images:
        return f"the detector {detector.name} needs images, which a scan does not have"
    return None


def _is_out_of_memory(fault: Exception) -> bool:
    """Whether C++ said so: onnxruntime has no exception type for it."""
    text = str(fault)
    return "bad_alloc" in text or "allocate memory" in text or "Cannot allocate" in text


def _without_path(text: str, path: str) -> str:
    """The result names its file already."""
    return text.removeprefix(f"{path}: ")
