"""What happens to a file that is explained, in the process that was forked for it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from litmus.detectors import Detector
from litmus.detectors.fused import at_most
from litmus.errors import UnsupportedModelError
from litmus.models import InputSpec, Model

if TYPE_CHECKING:
    import torch
    from torch import nn

    from litmus.inversion.explaining import CleanImages, Effect

__all__ = ["explain_model", "load_explained"]


def load_explained(setup: Mapping[str, Any]) -> CleanImages:
    """Load clean images for models of one shape; raises DataError or UsageError, see `CleanImages`.

    The mother does so: a child need not get at them.
    """
    from litmus.inversion.explaining import CleanImages

    spec = InputSpec.from_json(setup["input_spec"])
    return CleanImages.load(setup["images"], spec, seed=setup["seed"])


def explain_model(
    model: Model,
    request: Mapping[str, Any],
    detectors: Mapping[str, Detector],
    clean: CleanImages | None,
) -> dict[str, object]:
    """Return the part of an explanation that a request's `explain` asks for.

    That is what the model is (`describe`), or reversed triggers (`masks`, `pair`). Raises
    UnsupportedModelError where there is no gradient or it takes longer than `seconds`.
    """
    asked = request["explain"]
    with at_most(asked["seconds"]):
        model, outputs, notes = _recognised(model, detectors)
        if asked["what"] == "describe":
            return {
                "status": "explained",
                "input_spec": model.input_spec.to_json(),
                "classes": list(getattr(model, "classes", ())),
                "outputs": outputs,
                "notes": notes,
                "external_files": list(getattr(model, "external_files", ())),
            }
        assert clean is not None
        return {"status": "explained", **_reversed(_module(model), asked, clean)}


def _recognised(
    model: Model, detectors: Mapping[str, Detector]
) -> tuple[Model, list[int], list[str]]:
    """Return the model as it wants to be fed, which of its outputs is which class, and notes."""
    spec = model.input_spec
    judge = next((each for each in detectors.values() if each.input_spec == spec), None)
    own = list(range(spec.num_classes))
    if judge is None:
        return model, own, list(getattr(model, "notes", ()))
    found = judge.recognise(model)
    notes = [*getattr(found.model, "notes", ()), *found.notes]
    notes += [found.out_of_scope] if found.out_of_scope else []
    return found.model, list(found.order) or own, notes


def _module(model: Model) -> nn.Module:
    from litmus.inversion import prepared

    module = getattr(model, "torch_module", None)
    if module is None:
        raise UnsupportedModelError("its kind of file has no gradients")
    return prepared(module())


def _reversed(module: nn.Module, asked: Mapping[str, Any], clean: CleanImages) -> dict[str, object]:
    from litmus.inversion import MaskSettings, PatchSettings
    from litmus.inversion.explaining import explain_mask, explain_pair

    ordered, right, total = clean.matched(module)
    targets, seed = asked["targets"], asked["seed"]
    if asked["what"] == "masks":
        masks = MaskSettings(steps=asked["steps"], images_per_class=ordered.fit.per_class)
        found = explain_mask(module, ordered, masks, targets=targets, seed=seed)
        return {
            "masks": [
                {
                    "target_class": each.target_class,
                    "norm": float(each.mask.sum()),
                    "mask": _pixels(each.mask),
                    "pattern": _pixels(each.pattern),
                    **_effect(each.effect),
                }
                for each in found
            ]
        }
    patches = PatchSettings(size=asked["patch_size"], place=asked["place"])
    pair = explain_pair(module, ordered, patches, targets=targets, seed=seed)
    return {
        "names": list(ordered.names),
        "right": right,
        "total": total,
        "per_class": [ordered.fit.per_class, ordered.held_out.per_class],
        "pair": {
            "source_class": pair.source_class,
            "target_class": pair.target_class,
            "patch": _pixels(pair.patch),
            **_effect(pair.effect),
        },
    }


def _effect(effect: Effect) -> dict[str, object]:
    return {
        "images": effect.images,
        "turned": effect.turned,
        "before": _pixels(effect.before),
        "after": _pixels(effect.after),
        "answers": effect.answers.tolist(),
    }


def _pixels(values: torch.Tensor) -> str:
    """Values in [0, 1] as bytes in Base64, in C order."""
    levels = (values * 255).round().clamp(0, 255).byte().contiguous()
    return base64.b64encode(levels.numpy().tobytes()).decode()
