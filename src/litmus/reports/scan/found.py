"""What a trigger search found, for a page: sentences and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.evidence import Evidence, class_text
from litmus.reports.scan.pictures import png_uri
from litmus.scanning import Scored
from litmus.scanning.results import printable

__all__ = ["Found", "found"]

_GREY: Final = 0.5
_MOST_SOURCES: Final = 20
"""Classes that are named."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image without and with the trigger, and the classes that the model gives both."""

    before: str
    after: str
    was: str
    becomes: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """`words`, the `trigger` as a picture, `examples`, and sentences on how far it reaches."""

    words: str
    trigger: str
    examples: Sequence[Example]
    more: Sequence[str]


def found(result: Scored) -> Found | None:
    """Return what to show of a result's evidence, if it has any."""
    evidence = result.evidence
    if evidence is None:
        return None
    words = printable(evidence.words(result.classes))
    pairs = zip(evidence.before, evidence.after, evidence.answers, strict=True)
    return Found(
        words=words[:1].upper() + words[1:],
        trigger=png_uri(_trigger(evidence)),
        examples=[
            Example(
                before=png_uri(before / 255),
                after=png_uri(after / 255),
                was=_class(answers[0], result.classes),
                becomes=_class(answers[1], result.classes),
            )
            for before, after, answers in pairs
        ],
        more=_more(evidence, result.classes),
    )


def _trigger(evidence: Evidence) -> NDArray[Any]:
    """The pattern on grey; of one that is added, as strong as can be seen."""
    pattern = evidence.pattern / 255
    if evidence.form == "additive":
        return pattern
    mask = (evidence.mask > 0) if evidence.form == "blend" else evidence.mask / 255
    return np.asarray(mask * pattern + (1 - mask) * _GREY)


def _more(evidence: Evidence, classes: Sequence[str]) -> list[str]:
    target = _class(evidence.target_class, classes)
    sentences = [
        f"It was sought and then judged on {printable(evidence.images_from)}; "
        f"{evidence.turned} of {evidence.images} that it was not sought on became {target}."
    ]
    others = [c for c in evidence.sources if c != evidence.source_class]
    if others:
        names = ", ".join(_class(label, classes) for label in others[:_MOST_SOURCES])
        more = len(others) - _MOST_SOURCES
        names += f" and {more} more" if more > 0 else ""
        sentences.append(f"It turns at least half of the images of these as well: {names}.")
    elif evidence.source_class is not None:
        sentences.append("It turns images of no other class: the change is one class to one.")
    if evidence.smallest and evidence.smallest != evidence.size:
        side = evidence.smallest
        sentences.append(f"A patch of {side}x{side} pixels leads to the same class.")
    return sentences


def _class(label: int, classes: Sequence[str]) -> str:
    return printable(class_text(label, classes))
