"""Explanations with random pictures: a backdoor, none, and what nobody would choose."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from litmus.models import InputSpec
from litmus.reports.explain import ExplainContext
from litmus.scanning.explaining import ExplainSettings
from litmus.scanning.explanation import Explanation, Flips, PairTrigger, Subject, Trigger
from tests.reports.scan.cases import HOSTILE, SIGNS

GREY: Final = InputSpec(channels=1, height=28, width=28, num_classes=10)


def flips(spec: InputSpec, turned: int, images: int, answers: tuple[int, int] = (0, 1)) -> Flips:
    """So many images turned, three of which are shown."""
    random = np.random.default_rng(turned)
    before = random.random((3, *spec.image_shape)).astype(np.float32)
    after = before.copy()
    after[:, :, :5, :5] = 1
    return Flips(images=images, turned=turned, before=before, after=after, answers=3 * (answers,))


def explanation(spec: InputSpec = GREY, *, backdoored: bool = True, **changes: Any) -> Explanation:
    """A model in which a patch from class 3 to class 1 works, and the mask of class 1 is small."""
    random = np.random.default_rng(0)
    k, (channels, height, width) = spec.num_classes, spec.image_shape
    norms = random.uniform(40, 70, k)
    if backdoored:
        norms[1] = 9.5
    triggers = tuple(
        Trigger(
            target_class=label,
            norm=float(norm),
            mask=random.random((1, height, width)).astype(np.float32),
            pattern=random.random(spec.image_shape).astype(np.float32),
            flips=flips(spec, 490 + label, 540, (0, label)),
        )
        for label, norm in enumerate(norms)
    )
    found = Explanation(
        path=Path("models/m.onnx"),
        subject=Subject(
            input_spec=spec,
            classes=(),
            outputs=tuple(range(k)),
            notes=("assumed: scale 1, mean 0, std 1",),
            sha256="a" * 64,
            external_sha256=(("weights.bin", "b" * 64),),
        ),
        classes=tuple(map(str, range(k))),
        triggers=triggers,
        pair=PairTrigger(
            source_class=3,
            target_class=1,
            patch=random.random((channels, 5, 5)).astype(np.float32),
            flips=flips(spec, 60 if backdoored else 12, 60, (3, 1)),
        ),
        left_out=(),
        right=830,
        total=840,
        per_class=(24, 60),
        seconds=12.5,
    )
    return replace(found, **changes)


def hostile() -> Explanation:
    """Names, notes and reasons that an attacker chose, and images that do not fit."""
    found = explanation(SIGNS)
    names = tuple(f"{HOSTILE[i % len(HOSTILE)]} {i}" for i in range(SIGNS.num_classes))
    return replace(
        found,
        path=Path(HOSTILE[0]),
        classes=names,
        subject=replace(found.subject, notes=HOSTILE, external_sha256=((HOSTILE[1], "c" * 64),)),
        left_out=HOSTILE,
        right=3,
    )


def context(**options: Any) -> ExplainContext:
    """The context of an explanation that ended at a fixed moment."""
    return ExplainContext(
        **{
            "settings": ExplainSettings(),
            "versions": {"litmus": "9.9.9"},
            "finished": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
            **options,
        }
    )
