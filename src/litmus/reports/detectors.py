"""Detectors as text and JSON: what they are for, how well they do, how they were made."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from litmus.detectors import DETECTORS, Detector
from litmus.detectors.calibration import Calibration
from litmus.detectors.candidates import NEVER_PICKED
from litmus.detectors.effort import EFFORTS
from litmus.detectors.learning_curve import LearningCurve
from litmus.reports.console import render_table
from litmus.reports.learning_curve import learning_curve_text
from litmus.scanning.results import printable

__all__ = [
    "DETECTOR_REPORTS",
    "KIND_REPORTS",
    "Described",
    "calibrated_text",
    "fit_command",
    "fitted_text",
    "held_out_sentence",
    "models_text",
]

SCHEMA_VERSION: Final = 1
_WIDTH: Final = 100

_BY_PARTS: Final = ["parts", "asked by scan", "held-out AUC", "smallest p"]


@dataclass(frozen=True, kw_only=True)
class Described:
    """A detector and its file: name, digest, size in bytes, whether it comes with Litmus."""

    name: str
    detector: Detector
    sha256: str
    num_bytes: int
    bundled: bool

    @property
    def picked(self) -> bool:
        """Whether a scan picks it by itself, for models of its shape."""
        return self.bundled and self.name not in NEVER_PICKED


def detectors_text(described: Sequence[Described], *, full: bool = False) -> str:
    """Return a paragraph on each; `full` adds all that its file says."""
    paragraphs = [
        f"{printable(each.name)}  {each.detector.name}, {_how_used(each)}\n"
        + _block({**_summary(each), **(_details(each) if full else {})})
        + (_parts(each.detector) + _commands(each) + _curve(each.detector) if full else "")
        for each in described
    ]
    hint = "" if full else "\nMore on one: litmus detectors NAME. Kinds to fit: --kinds.\n"
    return "\n".join(paragraphs) + hint


def detectors_json(described: Sequence[Described], *, full: bool = False) -> str:
    """Return all that the files say, whether `full` or not."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "detectors": [_as_json(each) for each in described],
    }
    return json.dumps(content, indent=1) + "\n"


DETECTOR_REPORTS: Final[Mapping[str, Callable[..., str]]] = {
    "text": detectors_text,
    "json": detectors_json,
}


def kinds_text(kinds: Mapping[str, type[Detector]]) -> str:
    """Return what `litmus fit --detector` takes, with the settings and defaults of each."""
    return "\n".join(
        f"{name}  {_first_line(kind)}\n"
        + _block(
            {
                "needs": ", ".join(_needs(kind)) or "nothing but the model's answers",
                "settings": ", ".join(f"{key}={_text(v)}" for key, v in kind.defaults().items()),
            }
        )
        for name, kind in kinds.items()
    )


def kinds_json(kinds: Mapping[str, type[Detector]]) -> str:
    """Return the same as JSON."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "kinds": [
            {
                "name": name,
                "description": _first_line(kind),
                "needs": _needs(kind),
                "settings": kind.defaults(),
            }
            for name, kind in kinds.items()
        ],
    }
    return json.dumps(content, indent=1) + "\n"


KIND_REPORTS: Final[Mapping[str, Callable[[Mapping[str, type[Detector]]], str]]] = {
    "text": kinds_text,
    "json": kinds_json,
}


def fit_command(detector: Detector, name: str) -> str | None:
    """Return the command that fits such a detector on its zoo, None where its file is silent.

    What no option can say, because it was fitted from Python, is said in Python.
    """
    how = detector.scope.get("fit")
    if how is None:
        return None
    given, seed = dict(how["given"]), detector.scope["seed"]
    kind = how["detector"]
    parts_from = how.get("parts_from")
    if any(isinstance(value, list | dict) for value in given.values()):
        given |= {} if parts_from is None else {"parts_from": f"{parts_from}.litmus"}
        stated = "".join(f", {key}={value!r}" for key, value in given.items())
        return f'litmus.fit("ZOO", {kind!r}, seed={seed}{stated})'
    pairs = [f"{key}={_text(value)}" for key, value in sorted(given.items())]
    options = [word for pair in pairs for word in ("--set", pair)]
    if parts_from is not None:
        options += ["--parts-from", f"{parts_from}.litmus"]
    file = f"{Path(name).stem}.litmus"
    words = ["fit", "ZOO", "-o", file, "--detector", kind, "--seed", str(seed), *options]
    return shlex.join(["litmus", *words])


def held_out_sentence(held_out: Mapping[str, Any]) -> str:
    """Return `0.98 (0.95 to 1.00) on 60 clean + 60 backdoored models`."""
    if "auc" not in held_out:
        return "not measured"
    return (
        f"{held_out['auc']:.3f} ({held_out['auc_low']:.3f} to {held_out['auc_high']:.3f}) on "
        f"{held_out['n_clean']} clean + {held_out['n_backdoored']} backdoored models"
    )


def fitted_text(detector: Detector, path: Path) -> str:
    """Return what `litmus fit` says at the end."""
    return (
        f"wrote {path}\n"
        f"held-out AUC (same triggers, models that no member had seen): "
        f"{held_out_sentence(detector.held_out)}\n"
        + _threshold(detector)
        + _parts(detector)
        + _curve(detector)
        + f"now measure it on unseen triggers: litmus evaluate ZOO --detector {path}\n"
    )


def calibrated_text(detector: Detector, path: Path) -> str:
    """Return what `litmus calibrate` says at the end."""
    return f"wrote {path}\n{_threshold(detector)}{_parts(detector)}"


def _threshold(detector: Detector) -> str:
    calibration = detector.calibration
    smallest = calibration.smallest_p_value
    fpr = max(0.05, smallest)
    return (
        f"calibrated on {models_text(calibration)}: the smallest p-value is {smallest:.4f}, "
        f"and so is the smallest --fpr\n"
        f"score threshold at a false-positive rate of {fpr:.2g}: about "
        f"{calibration.threshold(fpr):+.2f}\n"
    )


def models_text(calibration: Calibration) -> str:
    """Return on how many clean models a detector was calibrated, by population."""
    sizes = calibration.sizes
    several = "" if len(sizes) == 1 else f" ({' + '.join(map(str, sizes))}, each by itself)"
    return f"n = {sum(sizes)} clean models{several}"


def _how_used(each: Described) -> str:
    if each.picked:
        return "picked for models of its shape"
    return f"used by --detector {shlex.quote(printable(each.name))} only"


def _summary(each: Described) -> dict[str, str]:
    detector, scope = each.detector, each.detector.scope
    calibration = detector.calibration
    lines = {
        "for": f"{scope.get('dataset', 'unknown images')}, {detector.input_spec}",
        "fitted on": f"{scope.get('num_models', '?')} models",
        "calibrated on": _calibrated_on(scope),
        "architectures": ", ".join(scope.get("architectures", [])),
        "attacks": "; ".join(scope.get("attacks", [])),
        "held-out AUC": held_out_sentence(detector.held_out),
        "smallest --fpr": f"{calibration.smallest_p_value:.4f}, calibrated on "
        f"{models_text(calibration)}",
        "size": f"{each.num_bytes / 1000:.0f} kB",
    }
    if each.bundled and each.name in NEVER_PICKED:
        lines["not picked"] = NEVER_PICKED[each.name]
    return lines


def _calibrated_on(scope: Mapping[str, Any]) -> str:
    """Which other models, where they are not those that the detector was fitted on."""
    own = scope.get("calibrated_on")
    tables = [*([] if own is None else [own]), *scope.get("also_calibrated_on", [])]
    return "; ".join(f"{t['num_models']} other models, zoo {t['zoo']}" for t in tables)


def _details(each: Described) -> dict[str, str]:
    detector, scope = each.detector, each.detector.scope
    recipe = scope.get("recipe", {})
    kinds = scope.get("parts", {detector.name: scope})
    return {
        "classes": ", ".join(scope.get("class_names", [])),
        "triggers": f"{len(scope.get('triggers', []))} different ones",
        "zoo": ", ".join(f"{key} {recipe[key]}" for key in _OF_RECIPE if key in recipe),
        **{
            f"settings of {kind}": ", ".join(
                f"{key}={_text(value)}" for key, value in own.get("settings", {}).items()
            )
            for kind, own in kinds.items()
        },
        "folds": f"of {scope['folds']}s" if "folds" in scope else "",
        "AUC by attack": _by_attack(detector.at_effort("standard").held_out),
        "reference images": _references(detector),
        "seed": str(scope.get("seed", "")),
        "made with": ", ".join(
            f"{label} {scope[key]}" for key, label in _VERSIONS.items() if key in scope
        ),
        "SHA-256": each.sha256,
    }


def _by_attack(held_out: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{attack} {own['auc']:.3f} (n = {own['n']})"
        for attack, own in held_out.get("by_attack", {}).items()
    )


def _references(detector: Detector) -> str:
    if detector.references is None:
        return "none: what is not stated of a model is assumed"
    facts = detector.references.facts
    return (
        f"learned on {facts['num_models']} clean models; {facts['num_unseen']} others, clean and "
        f"backdoored, give them their class with a mean probability of {facts['agreement']:.2f}"
    )


def _commands(each: Described) -> str:
    """How it was made, in lines that can be copied."""
    command = fit_command(each.detector, each.name)
    if command is None:
        return ""
    lines = ["litmus zoo build RECIPE.toml -o ZOO", command]
    if each.bundled:
        lines.insert(0, f"make bundle NAME={each.name}    # in the repository; it runs:")
    return "".join(f"{line}\n" for line in ["made by:", *(f"  {printable(x)}" for x in lines)])


_OF_RECIPE: Final = ("name", "seed", "twins", "test_share")
_VERSIONS: Final = {"litmus_version": "Litmus", "torch_version": "PyTorch"}


def _as_json(each: Described) -> dict[str, Any]:
    detector = each.detector
    return {
        "name": each.name,
        "kind": detector.name,
        "bundled": each.bundled,
        "picked": each.picked,
        "sha256": each.sha256,
        "bytes": each.num_bytes,
        "input_spec": detector.input_spec.to_json(),
        "scope": dict(detector.scope),
        "held_out": dict(detector.held_out),
        "held_out_by_parts": {
            "+".join(parts): dict(held_out)
            for parts, held_out in detector.held_out_by_parts().items()
        },
        "held_out_of_each_part": {
            name: dict(part.held_out) for name, part in getattr(detector, "parts", {}).items()
        },
        "references": None if detector.references is None else dict(detector.references.facts),
        "n_calibration": len(detector.calibration.scores),
        "smallest_p_value": detector.calibration.smallest_p_value,
        "command": fit_command(detector, each.name),
    }


def _curve(detector: Detector) -> str:
    curve = LearningCurve.of(detector.held_out)
    return "" if curve is None else f"learning curve:\n{learning_curve_text(curve)}"


def _block(lines: Mapping[str, str]) -> str:
    """Return labelled lines, folded; empty ones are left out."""
    label_width = max(map(len, lines)) + 4
    return "".join(
        textwrap.fill(
            printable(text),
            _WIDTH,
            initial_indent=f"  {label}".ljust(label_width),
            subsequent_indent=" " * label_width,
            break_on_hyphens=False,
            break_long_words=False,
        )
        + "\n"
        for label, text in lines.items()
        if text
    )


def _first_line(kind: type[Detector]) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def _needs(kind: type[Detector]) -> list[str]:
    needs = {
        "a zoo to learn from": kind.needs_zoo,
        "clean images": kind.needs_images,
        "the last layer's weights": kind.needs_weights,
        "gradients": kind.needs_gradients,
    }
    return [need for need, needed in needs.items() if needed]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parts(detector: Detector) -> str:
    rows = _rows_by_parts(detector)
    return f"by what a scan may ask:\n{render_table(_BY_PARTS, rows)}" if rows else ""


def _rows_by_parts(detector: Detector) -> list[list[str]]:
    return [
        [
            ", ".join(parts),
            _asked_by(parts),
            held_out_sentence(held_out),
            f"{detector.calibration_of(parts).smallest_p_value:.4f}",
        ]
        for parts, held_out in detector.held_out_by_parts().items()
    ]


def _asked_by(parts: tuple[str, ...]) -> str:
    """The options with which a scan asks these parts."""
    kinds = [DETECTORS[part] for part in parts]
    if any(kind.needs_images for kind in kinds):
        return "--effort thorough --images"
    efforts = [kind.effort for kind in kinds]
    return f"--effort {max(efforts, key=EFFORTS.index)}"
