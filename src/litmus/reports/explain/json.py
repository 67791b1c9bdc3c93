"""An explanation as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any, Final

from litmus.reports.explain.content import LIMITS, ExplainContext, headline
from litmus.reports.scan.content import sandbox_json
from litmus.reports.scan.pictures import png_uri
from litmus.scanning.explanation import Explanation, Flips

__all__ = ["SCHEMA_VERSION", "explain_json", "explain_schema"]

SCHEMA_VERSION: Final = 1
"""Grows when a field changes its meaning or goes; new fields may come without."""


def explain_json(explanation: Explanation, context: ExplainContext) -> str:
    """Return the explanation as JSON that follows `explain_schema`; pictures are `data:` URIs.

    Classes are the model's own outputs, counted from 0.
    """
    subject, outputs = explanation.subject, explanation.subject.outputs
    target = explanation.likely_target
    pair = explanation.pair
    content = {
        "schema_version": SCHEMA_VERSION,
        "versions": dict(context.versions),
        "finished": context.finished.isoformat() if context.finished else None,
        # Bytes that are no UTF-8 come as lone surrogates, which no JSON parser has to take.
        "path": str(explanation.path).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "model_sha256": subject.sha256,
        "external_sha256": dict(subject.external_sha256),
        "input_spec": subject.input_spec.to_json(),
        "classes": {str(outputs[i]): name for i, name in enumerate(explanation.classes)},
        "settings": asdict(context.settings),
        "headline": headline(explanation),
        "likely_target": None if target is None else outputs[target],
        "anomaly_index": explanation.anomaly_index,
        "pair": pair
        and {
            "source_class": outputs[pair.source_class],
            "target_class": outputs[pair.target_class],
            "works": pair.works,
            **_flips(pair.flips),
            "patch": png_uri(pair.patch),
        },
        "masks": [
            {
                "target_class": outputs[trigger.target_class],
                "norm": trigger.norm,
                **_flips(trigger.flips),
                "mask": png_uri(trigger.mask),
                "pattern": png_uri(trigger.pattern),
            }
            for trigger in explanation.triggers
        ],
        "images": {
            "right": explanation.right,
            "total": explanation.total,
            "optimised_on_per_class": explanation.per_class[0],
            "held_out_per_class": explanation.per_class[1],
        },
        "left_out": list(explanation.left_out),
        "notes": list(subject.notes),
        "limits": list(LIMITS),
        "seconds": explanation.seconds,
        "sandbox": sandbox_json(explanation.sandbox),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def explain_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the report."""
    file = resources.files("litmus.reports.explain") / "schema.json"
    return file.read_text(encoding="utf-8")


def _flips(flips: Flips) -> dict[str, Any]:
    low, high = flips.interval
    return {
        "turned": flips.turned,
        "images": flips.images,
        "flip_rate": flips.rate,
        "flip_rate_low": low,
        "flip_rate_high": high,
    }
