"""Detectors: what tells a backdoored model from a clean one.

A new detector is one file with a subclass of `Detector` and one line in `DETECTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litmus.artifacts import parse_tensors, sha256_of
from litmus.detectors.attack_based import AttackBasedDetector
from litmus.detectors.base import DETECTOR_FORMAT, Detector, Judgement, Measurement, Verdict
from litmus.detectors.fused import FusedDetector
from litmus.detectors.inverting import InversionDetector
from litmus.detectors.last_layer import LastLayerDetector
from litmus.detectors.max_margin import MaxMarginDetector
from litmus.detectors.neural_cleanse import NeuralCleanseDetector
from litmus.detectors.patterns import NoiseDetector, ULPDetector
from litmus.detectors.recognition import Recognition
from litmus.detectors.references import References
from litmus.detectors.stamps import StampsDetector
from litmus.detectors.statistic import StatisticDetector
from litmus.detectors.trigger_search import TriggerSearchDetector
from litmus.errors import DataError, DetectorError, UsageError

if TYPE_CHECKING:
    from litmus.datasets import ImageDataset
    from litmus.zoo import Zoo

__all__ = [
    "BUNDLED",
    "DETECTORS",
    "Detector",
    "InversionDetector",
    "Judgement",
    "Measurement",
    "Recognition",
    "References",
    "StatisticDetector",
    "Verdict",
    "bundled_detectors",
    "find_detector",
    "fit",
    "load_detector",
]

DETECTORS: Final[dict[str, type[Detector]]] = {
    "ulp": ULPDetector,
    "noise": NoiseDetector,
    "attack_based": AttackBasedDetector,
    "neural_cleanse": NeuralCleanseDetector,
    "last_layer": LastLayerDetector,
    "stamps": StampsDetector,
    "trigger_search": TriggerSearchDetector,
    "max_margin": MaxMarginDetector,
    "fused": FusedDetector,
}


BUNDLED: Final = Path(str(resources.files("litmus"))) / "bundled"
"""The folder of the detectors that come with Litmus."""


def bundled_detectors(folder: Path = BUNDLED) -> dict[str, Path]:
    """Return the files of a folder's detectors by the name of their data set, in its order."""
    return {path.stem: path for path in sorted(folder.glob("*.litmus"))}


def find_detector(name_or_file: str | Path) -> Path:
    """Return the file of a detector: a path, or the name of a bundled one."""
    bundled = bundled_detectors()
    path = bundled.get(str(name_or_file), Path(name_or_file))
    if not path.is_file():
        raise DetectorError(
            "no such detector",
            expected=f"a .litmus file or one of {', '.join(bundled) or '(none bundled)'}",
            got=name_or_file,
        )
    return path


# What reading a header raises where it is not what `to_bytes` writes.
_MALFORMED: Final = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, UsageError
)  # fmt: skip


def load_detector(name_or_file: str | Path) -> Detector:
    """Read a detector by file or bundled name; raises DetectorError where it is damaged."""
    path = find_detector(name_or_file)
    arrays, header = parse_tensors(path.read_bytes(), path, DetectorError)
    if header.get("format") != DETECTOR_FORMAT or str(header.get("detector")) not in DETECTORS:
        raise DetectorError(
            "not a detector that this version knows",
            expected=f"{DETECTOR_FORMAT} of {', '.join(DETECTORS)}",
            got=f"{header.get('format')} of {header.get('detector')}",
            where=path,
        )
    try:
        return DETECTORS[header["detector"]].from_file(arrays, header)
    except DetectorError as fault:
        raise DetectorError(
            fault.what, expected=fault.expected, got=fault.got, where=path
        ) from fault
    except _MALFORMED as fault:
        text = f"{type(fault).__name__}: {fault}"[:200]
        raise DetectorError("malformed", got=text, where=path) from fault


def fit(
    zoo: Zoo | str | Path,
    detector: str = "ulp",
    *,
    references: bool = False,
    on_references: Callable[[int, int], None] = lambda done, total: None,
    parts_from: str | Path | None = None,
    **settings: Any,
) -> Detector:
    """Fit a detector by name on a zoo (or its folder), and record how.

    A fused one may take its parts, and the reference images, from another fused one, `parts_from`
    (a file or a bundled one's name), which was fitted on another zoo: this zoo then calibrates
    them, and what that one lacks is fitted.

    `settings` are those of `PatternDetector.fit`, `InversionDetector.fit` or
    `StatisticDetector.fit`. With `references` the detector learns its reference images, too, for
    which it needs the zoo's data set. A detector that no scan can use, since it needs images, goes
    without. Raises DataError where the data set is not to be had.
    """
    from litmus.zoo import Zoo

    if detector not in DETECTORS:
        raise UsageError(
            "unknown detector", expected=f"one of {', '.join(DETECTORS)}", got=detector
        )
    opened = zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)
    kind = DETECTORS[detector]
    if parts_from is not None:
        return _with_parts(opened, kind, parts_from, settings)
    # First: where the images are missing, nobody shall wait for a fit in vain.
    dataset = _images_of(opened) if references and not kind.needs_images else None
    fitted = _recorded(kind.fit(opened, **settings), settings)
    if dataset is None:
        return fitted
    seed = settings.get("seed", 0)
    learned = References.fit(opened, dataset, seed=seed, on_progress=on_references)
    return replace(fitted, references=learned)


def _with_parts(
    zoo: Zoo, kind: type[Detector], parts_from: str | Path, settings: Mapping[str, Any]
) -> Detector:
    path = find_detector(parts_from)
    given = load_detector(path)
    if not (issubclass(kind, FusedDetector) and isinstance(given, FusedDetector)):
        raise UsageError(
            "only a fused detector has parts, and can take some",
            expected="detector fused, and parts from a fused one",
            got=f"{kind.name}, {given.name}",
            where=path,
        )
    fitted = kind.fit(zoo, fitted_parts=given, **settings)
    whence = {"parts_from": path.stem, "parts_from_sha256": sha256_of(path)}
    return replace(_recorded(fitted, settings, **whence), references=given.references)


def _recorded(fitted: Detector, settings: Mapping[str, Any], **more: str) -> Detector:
    """Return the detector with a record of how it was fitted."""
    given = {name: value for name, value in settings.items() if name != "seed" and _plain(value)}
    how = {"detector": fitted.name, "given": given, **more}
    return replace(fitted, scope={**fitted.scope, "fit": how})


def _images_of(zoo: Zoo) -> ImageDataset:
    try:
        return zoo.load_dataset()
    except DataError as fault:
        raise DataError(
            f"reference images need the zoo's data set: {fault.what}",
            expected="its folder as --data DIR, or a fit with --no-references",
            where=fault.where,
        ) from fault


def _plain(value: Any) -> bool:
    """Whether a header can hold it: images and callbacks are not settings."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, Mapping):
        return all(map(_plain, value.values()))
    return isinstance(value, bool | int | float | str)
