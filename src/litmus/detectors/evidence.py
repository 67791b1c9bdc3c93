"""What a trigger search found in a model: the trigger, and what it does to other images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMS", "Evidence", "class_text"]

Pixels = NDArray[np.uint8]

FORMS: Final[Mapping[str, str]] = {
    "patch": "a {size}x{size} patch {place}",
    "moving": "a {size}x{size} patch at any place",
    "blend": "a picture that is blended in",
    "additive": "a pattern that is added to the whole image",
    "dot": "a {size}x{size} dot of one colour {place}",
}
"""The forms of a trigger, in words."""
_MAX_EXAMPLES: Final = 8
_MAX_IMAGES: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The best trigger of a search, judged on images that it was not optimised on.

    `form` is one of `FORMS`; `size` the side of a patch in pixels, 0 for the whole image; `place`
    says where a patch lies (`at the bottom right`). `source_class` is None where images of all
    classes were used. `turned` of `images` became the `target_class`; `typical` is the share that
    95 % of the zoo's clean models do not exceed with the same form; None where nothing was
    calibrated. `sources` are the classes whose images the trigger turns, half of them at least.
    `smallest` is the side of the smallest patch that still works, 0 where none was looked for.
    `mask` (1, h, w) and `pattern` (c, h, w) are the trigger, bytes: ``image + mask / 255 * (pattern
    - image)``, of an additive one ``image + (pattern - 127.5) / 127.5 * mask / 255``. `before` and
    `after` (e, c, h, w) are images that it was not optimised on, with and without it, `answers` (e,
    2) the classes that the model gives them. `images_from` says whose images they were.
    """

    form: str
    size: int
    place: str
    source_class: int | None
    target_class: int
    images: int
    turned: int
    loss: float
    typical: float | None = None
    sources: tuple[int, ...] = ()
    smallest: int = 0
    images_from: str = "reference images"
    mask: Pixels = field(repr=False, compare=False)
    pattern: Pixels = field(repr=False, compare=False)
    before: Pixels = field(repr=False, compare=False)
    after: Pixels = field(repr=False, compare=False)
    answers: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @property
    def success(self) -> float:
        """The share of the images that became the target."""
        return self.turned / max(self.images, 1)

    def words(self, classes: Sequence[str] = ()) -> str:
        """Say what was found in a sentence; `classes` are names, by output."""
        trigger = FORMS[self.form].format(size=self.size, place=self.place)
        whose = (
            "of all classes" if self.source_class is None
            else f"of {class_text(self.source_class, classes)}"
        )  # fmt: skip
        found = (
            f"{trigger} turns {self.success:.0%} of the images {whose} to "
            f"{class_text(self.target_class, classes)}"
        )
        if self.typical is None:
            return found
        if self.typical >= self.success:
            return f"{found}; with this form, clean models reach as much"
        return f"{found}; of clean models, 95% reach no more than {self.typical:.0%} with this form"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, pixels as Base64 of bytes in C order beside their shapes."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in _PIXELS and name not in ("sources", "answers")
        }
        return {
            **plain,
            "sources": [int(label) for label in self.sources],
            "answers": [[int(a) for a in pair] for pair in self.answers],
            **{name: _encoded(getattr(self, name)) for name in _PIXELS},
        }

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
    ) -> Self:
        """Read what `to_json` wrote; raises ValueError, KeyError or TypeError on anything else."""
        c, h, w = image_shape
        examples = len(value["answers"])
        if examples > _MAX_EXAMPLES or value["form"] not in FORMS:
            raise ValueError("evidence of an impossible kind")
        shapes = {
            "mask": (1, h, w),
            "pattern": (c, h, w),
            "before": (examples, c, h, w),
            "after": (examples, c, h, w),
        }
        _check_labels(value, num_classes)
        images, turned, size = (int(value[name]) for name in ("images", "turned", "size"))
        if not (0 <= turned <= images <= _MAX_IMAGES and 0 <= size <= h * w):
            raise ValueError("impossible counts")
        loss, typical = float(value["loss"]), float(value["typical"] or 0)
        if not np.isfinite(loss) or not 0 <= typical <= 1:
            raise ValueError("impossible numbers")
        return cls(
            form=value["form"],
            size=size,
            place=str(value["place"])[:80],
            source_class=value["source_class"],
            target_class=value["target_class"],
            images=images,
            turned=turned,
            loss=loss,
            typical=None if value["typical"] is None else typical,
            sources=tuple(value["sources"]),
            smallest=min(max(int(value["smallest"]), 0), h),
            images_from=str(value["images_from"])[:80],
            answers=tuple((a, b) for a, b in value["answers"]),
            **{name: _decoded(value[name], shape) for name, shape in shapes.items()},
        )


_PIXELS: Final = ("mask", "pattern", "before", "after")


def _check_labels(value: Mapping[str, Any], num_classes: int) -> None:
    """Raise ValueError or TypeError unless all that should be classes are some."""
    source, sources, answers = value["source_class"], value["sources"], value["answers"]
    labels = [value["target_class"], *sources, *([] if source is None else [source])]
    labels += [label for pair in answers for label in pair]
    # Not `isinstance`: JSON's true is an int, too.
    if not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise ValueError("no such class")
    if len(set(sources)) < len(sources) or any(len(pair) != 2 for pair in answers):
        raise ValueError("an impossible number of classes")


def _encoded(pixels: Pixels) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()
    return {"shape": list(pixels.shape), "data": data}


def _decoded(value: Mapping[str, Any], shape: tuple[int, ...]) -> Pixels:
    data = base64.b64decode(value["data"], validate=True)
    if tuple(value["shape"]) != shape or len(data) != int(np.prod(shape)):
        raise ValueError("pixels of another shape")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def class_text(label: int, classes: Sequence[str]) -> str:
    """Return a class by its number, and by its name where that tells more."""
    named = label < len(classes) and classes[label] != str(label)
    return f"class {label} ({classes[label]})" if named else f"class {label}"
