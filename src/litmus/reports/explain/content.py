"""What all reports of an explanation say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np

from litmus.reports.scan.content import sandbox_sentence
from litmus.scanning.explaining import ExplainSettings
from litmus.scanning.explanation import ANOMALOUS, Explanation, Flips
from litmus.scanning.results import printable

__all__ = [
    "LIMITS",
    "ExplainContext",
    "class_name",
    "flips_text",
    "headline",
    "images_sentence",
    "interval_text",
    "mask_sentence",
    "pair_sentence",
    "warnings",
]

_PLACES: Final = {
    "corner": "in a random corner",
    "anywhere": "anywhere in the image",
    "surface": "near the middle of the image",
}
_POOR: Final = 0.5
_LONGEST: Final = 48
"""Letters of a class's name."""

LIMITS: Final = (
    "It shows what can be made to happen, not what somebody did. A mask that is large enough turns "
    "the images of any network, and on photographs a small patch often does, backdoor or not.",
    "The masks are one for images of all classes. They are blind to attacks that lead each class "
    "to another one (all-to-all), and weak on attacks on one class only.",
    "The pairs of classes are tried with one small opaque patch. That is blind to blended images, "
    "waves, warps, and triggers that are larger or lie elsewhere.",
    "Nothing here is calibrated: there is no p-value and no rate of false alarms. That no class "
    "stands out does not mean that there is no backdoor. The verdict is that of litmus scan.",
)
"""What inversion proves, and what it is blind to."""


@dataclass(frozen=True, kw_only=True)
class ExplainContext:
    """What an explanation stands beside: how it was made, with what, and when it ended.

    `colour` and `width` (columns) are for text alone.
    """

    settings: ExplainSettings
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: datetime | None = None
    colour: bool = False
    width: int = 200


def class_name(explanation: Explanation, label: int) -> str:
    """Return what a class is called: its number among the model's outputs, and its name."""
    output = explanation.subject.outputs[label]
    name = printable(explanation.classes[label])
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
    return f"class {output}" if name == str(output) else f"class {output} ({name})"


def headline(explanation: Explanation) -> str:
    """Return what was found, in one sentence."""
    pair, masks = explanation.pair, explanation.standing_out
    if pair is not None and pair.works:
        target = class_name(explanation, pair.target_class)
        if masks is not None and masks.target_class == pair.target_class:
            return f"Both searches point to {target}"
        return f"A small patch leads {class_name(explanation, pair.source_class)} to {target}"
    if masks is not None:
        return f"{_capital(class_name(explanation, masks.target_class))} is reached most easily"
    if pair is not None and _all_turned(pair.flips):
        return "A small patch turns all images of one class; they are too few to be sure"
    return "No class stands out"


def warnings(explanation: Explanation) -> list[str]:
    """Return what makes all of it doubtful, or incomplete."""
    found = []
    if explanation.total and explanation.agreement < _POOR:
        found.append(
            f"The model has only {100 * explanation.agreement:.0f} % of the clean images right: "
            "they are not of its classes, or it wants them otherwise (--scale, --mean, --std, "
            "--channels). What follows means little."
        )
    found += [f"Left out: {printable(text)}." for text in explanation.left_out]
    lacking = sandbox_sentence([explanation.sandbox])
    return [*found, lacking] if lacking else found


def images_sentence(explanation: Explanation) -> str:
    """Return on which images all this was done."""
    fit, held_out = explanation.per_class
    if not explanation.total:
        return ""
    return (
        f"Optimised on {fit} clean images of each class, counted on {held_out} others that were "
        f"held back; the model has {explanation.right} of all {explanation.total} right "
        f"({100 * explanation.agreement:.1f} %)."
    )


def pair_sentence(explanation: Explanation, settings: ExplainSettings) -> str:
    """Return what the best patch does; empty where no pair was tried."""
    pair = explanation.pair
    if pair is None:
        return ""
    size = settings.patch_size
    says = (
        "that is above 90 % with 95 % confidence, as a backdoor's own trigger would do"
        if pair.works
        else "with more images held back that would be above 90 % with confidence"
        if _all_turned(pair.flips)
        else "a backdoor's own trigger would do so nearly always"
    )
    return (
        f"Of all pairs of classes, a {size}x{size} patch {_PLACES[settings.place]} works best from "
        f"{class_name(explanation, pair.source_class)} to "
        f"{class_name(explanation, pair.target_class)}: it turns {flips_text(pair.flips)} images "
        f"({interval_text(pair.flips)}); {says}."
    )


def mask_sentence(explanation: Explanation) -> str:
    """Return what the smallest mask tells; empty where there is none."""
    smallest = explanation.smallest
    if smallest is None:
        return ""
    first = (
        f"{_capital(class_name(explanation, smallest.target_class))} needs the smallest mask: "
        f"{smallest.norm:.1f} pixels"
    )
    index = explanation.anomaly_index
    if index is None:
        return f"{first}. Of fewer than four classes nothing tells which would be usual."
    above = "above" if index > ANOMALOUS else "not above"
    stands = "so it stands out" if index > ANOMALOUS else "so it does not stand out"
    return (
        f"{first}, where the median class needs {np.median(explanation.norms):.1f}. The anomaly "
        f"index is {index:.2f}, {above} {ANOMALOUS:g}, {stands} by the rule of Neural Cleanse."
    )


def flips_text(flips: Flips) -> str:
    """Return how many images were turned."""
    return f"{flips.turned} of {flips.images}"


def interval_text(flips: Flips) -> str:
    """Return the rate with its interval, in percent."""
    low, high = flips.interval
    return f"{100 * flips.rate:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f}"


def _all_turned(flips: Flips) -> bool:
    return flips.turned == flips.images > 0


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
