"""Which detector judges a model: the one that was named, or a bundled one, by the model's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from litmus.artifacts import sha256_of
from litmus.detectors import BUNDLED, Detector, bundled_detectors, find_detector, load_detector
from litmus.detectors.effort import Effort
from litmus.models import InputSpec

__all__ = ["NEVER_PICKED", "Candidates", "name_of"]

NEVER_PICKED: Final[Mapping[str, str]] = {
    "digits": "it has mnist's shape, but was fitted for the demo: on one network and one recipe, "
    "on 8x8 digits that were enlarged",
}
"""Bundled detectors that are used only where they are named, and why."""


def name_of(path: Path) -> str:
    """Return what reports call a detector: a bundled one by its data set, another by its file."""
    return path.stem if path.parent == BUNDLED else path.name


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The detectors that a scan may use.

    `named` says whether the user named the only one; otherwise a model's shape picks among the
    bundled ones. `detectors`, their `files` and digests `sha256` have the same names, in the order
    in which they are tried on a model that takes several shapes: the alphabet's. `unpicked` are
    bundled ones that only a name calls, with their shapes.
    """

    named: bool
    detectors: Mapping[str, Detector]
    files: Mapping[str, Path]
    sha256: Mapping[str, str]
    unpicked: Mapping[str, InputSpec]

    @classmethod
    def of(cls, name_or_file: str | Path) -> Self:
        """Return the one detector that a user named; raises DetectorError, see `load_detector`."""
        path = find_detector(name_or_file)
        return cls._load({name_of(path): path}, named=True, unpicked={})

    @classmethod
    def bundled(cls, folder: Path = BUNDLED) -> Self:
        """Return a folder's detectors; raises DetectorError where one is damaged."""
        files = bundled_detectors(folder)
        unpicked = {
            name: load_detector(files.pop(name)).input_spec
            for name in NEVER_PICKED
            if name in files
        }
        return cls._load(files, named=False, unpicked=unpicked)

    @classmethod
    def _load(
        cls, files: Mapping[str, Path], *, named: bool, unpicked: Mapping[str, InputSpec]
    ) -> Self:
        return cls(
            named=named,
            detectors={name: load_detector(path) for name, path in files.items()},
            files=files,
            sha256={name: sha256_of(path) for name, path in files.items()},
            unpicked=unpicked,
        )

    def at_effort(self, effort: Effort, *, images: bool = False) -> Self:
        """Return the same for a scan with this effort, and with clean `images` by class."""
        made = {
            name: each.at_effort(effort, images=images) for name, each in self.detectors.items()
        }
        return replace(self, detectors=made)

    def check_fpr(self, fpr: float) -> None:
        """Raise UsageError where no candidate can promise this false-positive rate."""
        if self.detectors:
            finest = min(
                self.detectors.values(), key=lambda each: each.calibration.smallest_p_value
            )
            finest.check_fpr(fpr)

    def how_picked(self, name: str) -> tuple[str, ...]:
        """Return, for a report, why this detector and which others a name would call."""
        if self.named:
            return ()
        spec = self.detectors[name].input_spec
        shapes = {**{n: each.input_spec for n, each in self.detectors.items()}, **self.unpicked}
        others = sorted(n for n, shape in shapes.items() if shape == spec and n != name)
        also = f"; of the same shape, by --detector: {', '.join(others)}" if others else ""
        return (f"detector {name}, picked by the model's shape, {spec}{also}",)

    def why_none(self, takes: str, resizable: Sequence[str] = ()) -> str:
        """Return, for a report, why a model of the shape `takes` can't be judged.

        `resizable` are detectors that differ from it in height and width alone.
        """
        if self.named:
            (detector,) = self.detectors.values()
            return f"the model takes {takes}, the detector {detector.input_spec}"
        there = {name: str(each.input_spec) for name, each in self.detectors.items()}
        there |= {name: f"{spec}, by --detector only" for name, spec in self.unpicked.items()}
        listed = "; ".join(f"{name} ({scope})" for name, scope in sorted(there.items()))
        known = ", ".join(name for name in resizable if name in self.detectors)
        resize = f"named by --detector, {known} would be asked with resized images" if known else ""
        return (
            f"no bundled detector is picked for {takes}: there are {listed or 'none'}; "
            f"{resize and f'{resize}, for a verdict that is at most inconclusive; '}"
            "fit one on your own images, see litmus zoo init and litmus fit"
        )
