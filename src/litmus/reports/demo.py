"""The demo's page: self-contained HTML with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

import litmus
from litmus.detectors import Detector
from litmus.evaluation import DetectionRow
from litmus.scanning import ScanResult, Scored
from litmus.zoo import Zoo

__all__ = ["DemoResult", "demo_html"]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo did; `pictures` are SVG texts: triggers, poisoned, patterns, roc."""

    recipe: str
    seconds: float
    zoo: Zoo
    detector: Detector
    row: DetectionRow
    results: Sequence[ScanResult]
    pictures: Mapping[str, str]


def demo_html(result: DemoResult) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("litmus", "reports"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    backdoored = [entry for entry in result.zoo.entries if entry.backdoored]
    return environment.get_template("demo.html.j2").render(
        row=result.row,
        minutes=result.seconds / 60,
        recipe=result.recipe,
        version=litmus.__version__,
        n_models=len(result.zoo.entries),
        n_backdoored=len(backdoored),
        clean_accuracy=sum(e.clean_accuracy for e in result.zoo.entries) / len(result.zoo.entries),
        attack_success=sum(e.attack_success for e in backdoored) / len(backdoored),
        n_calibration=len(result.detector.calibration.scores),
        smallest=result.detector.calibration.smallest_p_value,
        results=[(r, isinstance(r, Scored)) for r in result.results],
        pictures={name: Markup(_inline(svg)) for name, svg in result.pictures.items()},
    )


def _inline(svg: str) -> str:
    """Drop the XML prologue, which has no place inside HTML."""
    return svg[svg.index("<svg") :]
