"""Where detection breaks down: judged models by what their backdoors are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litmus.detectors import Detector
from litmus.evaluation.rows import DetectionRow, ModelJudgement, judged_row
from litmus.zoo import ZooEntry

__all__ = ["ALL", "PROPERTIES", "BreakdownRow", "breakdown"]

ALL: Final = "all"
"""The property of the row over all models."""

Band = tuple[float, str]
"""The largest value in a band, and what the band is called."""

_SIZES: Final[tuple[Band, ...]] = (
    (1, "1"), (2, "2"), (4, "3-4"), (6, "5-6"), (8, "7-8"), (float("inf"), "9 or more"),
)  # fmt: skip
_ALPHAS: Final[tuple[Band, ...]] = (
    (0.15, "up to 0.15"), (0.25, "0.15 to 0.25"), (0.4, "0.25 to 0.4"), (0.7, "0.4 to 0.7"),
    (0.999, "0.7 to 1"), (1, "1 (opaque)"),
)  # fmt: skip
_RATIOS: Final[tuple[Band, ...]] = (
    (0.05, "up to 5 %"), (0.1, "5 to 10 %"), (0.2, "10 to 20 %"), (0.4, "20 to 40 %"),
    (1, "above 40 %"),
)  # fmt: skip
_SCATTERED: Final = "2 or more pixels"
_WHOLE: Final = "whole image"


@dataclass(frozen=True, kw_only=True)
class BreakdownRow:
    """A detector on the backdoored models whose `name` (trigger size, ...) is `value`."""

    name: str
    value: str
    row: DetectionRow

    def to_json(self) -> dict[str, Any]:
        """Return the row's fields with the property and its value."""
        return {**self.row.to_json(), "property": self.name, "value": self.value}


def _size(entry: ZooEntry) -> str:
    attack = entry.spec.attack
    if "trigger" in attack:
        return _band(_SIZES, attack["trigger"]["size"])
    if "count" in attack:
        return _band(_SIZES, 1) if attack["count"] == 1 else _SCATTERED
    return _WHOLE


def _alpha(entry: ZooEntry) -> str | None:
    """Blended patterns have one, and patches, which are opaque by default."""
    attack = entry.spec.attack
    if "alpha" in attack or "trigger" in attack:
        return _band(_ALPHAS, attack.get("alpha", 1.0))
    return None


def _band(bands: Sequence[Band], value: float) -> str:
    return next(label for limit, label in bands if value <= limit)


PROPERTIES: Final[dict[str, Callable[[ZooEntry], str | None]]] = {
    "attack": lambda entry: str(entry.spec.attack["name"]),
    "label map": lambda entry: str(entry.spec.attack["label_map"]).replace("_", " "),
    "trigger size": _size,
    "alpha": _alpha,
    "poison ratio": lambda entry: _band(_RATIOS, entry.spec.attack["poison_ratio"]),
    "architecture": lambda entry: entry.architecture,
}
"""What a backdoored model is sorted by, and its place; None where it has no such thing.

A trigger's size is its side in pixels. The poison ratio is the share of each attacked class.
"""

_ORDER: Final = [
    *(label for bands in (_SIZES, _ALPHAS, _RATIOS) for _, label in bands), _SCATTERED, _WHOLE,
]  # fmt: skip


def breakdown(
    label: str,
    detector: Detector,
    models: Sequence[ModelJudgement],
    *,
    fpr: float,
    strata: Sequence[str] | None = None,
    leave_out: str | None = None,
    seed: int = 0,
) -> tuple[BreakdownRow, ...]:
    """Return a row over all models, and one for every value that they differ in.

    Backdoored models of a value are compared with all clean ones, or with those of their own
    stratum where `strata` (n,) are given: a group that was left out has a detector, and so a
    scale of scores, of its own. Those of an architecture are compared with clean ones of the
    same. Models without any to be compared with are left out. There are no rows where the models
    differ in nothing.
    """
    groups = list(strata) if strata is not None else [""] * len(models)

    def row(name: str, value: str, chosen: Sequence[int]) -> BreakdownRow:
        summary = judged_row(
            label,
            detector,
            [models[place] for place in chosen],
            fpr=fpr,
            seed=seed,
            group=name if name == ALL else f"{name}: {value}",
            leave_out=leave_out,
            strata=None if strata is None else [groups[place] for place in chosen],
        )
        return BreakdownRow(name=name, value=value, row=summary)

    rows = [
        row(name, value, chosen)
        for name, value_of in PROPERTIES.items()
        for value, places in _values([value_of(m.entry) for m in models], models, name)
        if (chosen := _comparable(places, models, groups))
    ]
    whole = _comparable(range(len(models)), models, groups)
    return (row(ALL, "", whole), *rows) if rows else ()


def _values(
    values: Sequence[str | None], models: Sequence[ModelJudgement], name: str
) -> Iterator[tuple[str, list[int]]]:
    """Yield each value that backdoored models have, if there are two, and where to look for it."""
    bad = [m.entry.backdoored for m in models]
    found = {value for value, is_bad in zip(values, bad, strict=True) if is_bad and value}
    if len(found) < 2:
        return
    shared = name == "architecture"  # a control has its twin's attack, but does not carry it out
    for value in sorted(found, key=lambda v: (_ORDER.index(v) if v in _ORDER else -1, v)):
        pairs = enumerate(zip(values, bad, strict=True))
        yield value, [i for i, (v, is_bad) in pairs if v == value or not (is_bad or shared)]


def _comparable(
    places: Sequence[int], models: Sequence[ModelJudgement], groups: Sequence[str]
) -> list[int]:
    """The models of strata that have clean and backdoored ones among these."""
    kinds = {
        kind: {groups[p] for p in places if models[p].entry.backdoored is kind}
        for kind in (True, False)
    }
    both = kinds[True] & kinds[False]
    return [place for place in places if groups[place] in both]
