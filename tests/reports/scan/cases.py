"""Results of every kind, judged by real detectors with random patterns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from litmus.detectors import Detector, Measurement
from litmus.detectors.candidates import Candidates
from litmus.detectors.evidence import Evidence
from litmus.models import InputSpec
from litmus.reports.scan import ScanContext
from litmus.scanning import Failed, Sandbox, ScanResult, Scored, Skipped
from litmus.scanning.baseline import Baseline, digests_of
from tests.formats.onnx_models import detector, fused_detector, layer_detector

COLOUR: Final = "colour"
LAYER: Final = "layer"
SIGNS: Final = InputSpec(channels=3, height=32, width=32, num_classes=43)

HOSTILE: Final = (
    "<script>alert(1)</script>.onnx",
    '"><img src=x onerror=alert(1)>.onnx',
    "a|b`c``d\\|[x](http://evil.example)@someone ![i](http://evil.example/i.png).onnx",
    "]]>&amp;<!--{{ 7 * 7 }}{% raw %}{0}.onnx",
    "\x1b[31mred\x00\n\r\u202egnp.onnx",
    "not-utf8-\udcff\udc80.onnx",
    "javascript:alert(1).onnx",
    "very-long-" + 200 * "x" + ".onnx",
)
"""Names that files may have, though few do."""


def candidates(detectors: Mapping[str, Detector] | None = None) -> Candidates:
    """Two detectors, one of which asks patterns, as if they were bundled."""
    chosen = detectors or {COLOUR: detector(), LAYER: layer_detector()}
    return Candidates(
        named=False,
        detectors=chosen,
        files={name: Path(f"{name}.litmus") for name in chosen},
        sha256={name: f"{i:064x}" for i, name in enumerate(chosen, 1)},
        unpicked={},
    )


def scored(
    path: str,
    score: float,
    known: Candidates | None = None,
    *,
    name: str = COLOUR,
    distance: float = 1.0,
    seed: int = 0,
    parts: Sequence[str] = (),
    left_out: Mapping[str, str] | None = None,
    out_of_scope: str = "",
    **changes: Any,
) -> Scored:
    """A file whose members all gave it this score."""
    known = known or candidates()
    judge = known.detectors[name]
    queries = sum(len(each) for each in judge.queries_by_member())
    members = int(judge.calibration.members.max()) + 1
    random = np.random.default_rng(seed)
    rows = random.dirichlet(np.full(judge.input_spec.num_classes, 0.3), queries)
    log_probs = np.log(rows + np.exp(-30))
    measurement = Measurement(
        member_scores=[score + 0.2 * i for i in range(members)],
        scope_distance=distance,
        parts=parts,
        left_out=left_out or {},
    )
    judgement = judge.judge(measurement, fpr=0.05, out_of_scope=out_of_scope)
    result = Scored(
        path=Path(path),
        score=judgement.score,
        p_value=judgement.p_value,
        probability=judgement.probability,
        verdict=judgement.verdict,
        notes=("assumed: scale 1, mean 0, std 1", *judgement.notes),
        seconds=0.0125,
        model_sha256=hashlib.sha256(f"{path!r} {score}".encode()).hexdigest(),
        detector=name,
        detector_sha256=known.sha256[name],
        format="onnx",
        log_probs=tuple(tuple(row) for row in log_probs.tolist()),
        member_scores=tuple(measurement.member_scores),
        parts=tuple(parts),
        out_of_scope=judgement.out_of_scope,
        sandbox=Sandbox(landlock=7, seccomp=True),
    )
    return replace(result, **changes)


def of_every_kind() -> list[ScanResult]:
    """Each verdict by each kind of detector, a skip and a failure."""
    return [
        scored("models/clean.onnx", -1.0),
        scored("models/bad.onnx", 9.0),
        scored("models/odd.onnx", 9.0, distance=1e6),
        scored("models/layer.onnx", 0.3, name=LAYER),
        Skipped(path=Path("models/old.h5"), reason="a Keras file: export it to ONNX"),
        Failed(path=Path("models/broken.onnx"), error="not an ONNX file, or a damaged one"),
    ]


def half_confined() -> list[ScanResult]:
    """Files whose processes a kernel without Landlock held."""
    sandbox = Sandbox(landlock=0, seccomp=True, refused=(("landlock", "not compiled in"),))
    return [replace(result, sandbox=sandbox) for result in of_every_kind()]


def thorough() -> tuple[list[ScanResult], Candidates]:
    """A thorough scan by a fused detector: some part each left out, models of other classes."""
    known = candidates({"all": fused_detector().at_effort("thorough")})
    slow = {"max_margin": "it takes longer than 900 seconds", "neural_cleanse": "it needs images"}
    two: dict[str, Any] = {"parts": ("ulp", "last_layer"), "left_out": slow}
    three: dict[str, Any] = {
        "parts": ("ulp", "last_layer", "max_margin"),
        "left_out": {"neural_cleanse": "why"},
    }
    found = "9 of 10 reference images are on their class; the model wants its input 0 to 255"
    strange = "the model is not for these classes (dog, cat, ...), or fed otherwise"
    results: list[ScanResult] = [
        scored("bad.onnx", 9.0, known, name="all", **two),
        scored("clean.onnx", -9.0, known, name="all", **three),
        scored("odd.onnx", 9.0, known, name="all", out_of_scope=strange, **two),
    ]
    told = [replace(r, notes=(found, *r.notes)) for r in results if isinstance(r, Scored)]
    return [*told], known


def evidence(spec: InputSpec | None = None, **changes: Any) -> Evidence:
    """A patch at the bottom right, on three noisy images, for models of this shape."""
    spec = spec or detector().input_spec
    random = np.random.default_rng(3)
    _, h, w = spec.image_shape
    mask = np.zeros((1, h, w), np.uint8)
    mask[:, -2:, -2:] = 255
    pattern = random.integers(0, 256, spec.image_shape, dtype=np.uint8)
    before = random.integers(0, 256, (3, *spec.image_shape), dtype=np.uint8)
    found = Evidence(
        form="patch",
        size=2,
        place="at the bottom right",
        source_class=1,
        target_class=2,
        images=40,
        turned=39,
        loss=0.03,
        typical=0.31,
        sources=(0, 1),
        smallest=1,
        mask=mask,
        pattern=pattern,
        before=before,
        after=np.where(mask == 255, pattern, before),
        answers=((1, 2), (1, 2), (1, 0)),
    )
    return replace(found, **changes)


def with_evidence(result: Scored, found: Evidence) -> Scored:
    """The result as it is where a search found something."""
    words = found.words(result.classes)
    return replace(result, evidence=found, notes=(f"found: {words}", *result.notes))


def context(known: Candidates | None = None, **options: Any) -> ScanContext:
    """The context of a scan that ended at a fixed moment."""
    return ScanContext(
        **{
            "candidates": known or candidates(),
            "fpr": 0.05,
            "root": Path("/srv"),
            "versions": {"litmus": "9.9.9", "onnxruntime": "1.2.3"},
            "finished": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
            **options,
        }
    )


def accepting(results: Sequence[ScanResult]) -> Baseline:
    """A baseline that knows these results."""
    known = [result for result in results if isinstance(result, Scored)]
    return Baseline(
        accepted={digests_of(r.model_sha256, {}): r.verdict for r in known if r.model_sha256}
    )


def hostile() -> list[ScanResult]:
    """Every hostile name as that of a suspicious file, in notes, classes, reasons and errors."""
    spec = detector().input_spec
    results: list[ScanResult] = []
    for i, name in enumerate(HOSTILE):
        classes = tuple(f"{name} {k}" for k in range(spec.num_classes))
        told = scored(name, 9.0, seed=i, notes=(name,), classes=classes)
        results.append(with_evidence(told, evidence(images_from=name, place=name)))
        results.append(Skipped(path=Path(f"s-{name}".replace("/", "_")), reason=name))
        results.append(Failed(path=Path(f"f-{name}".replace("/", "_")), error=name))
    return results
