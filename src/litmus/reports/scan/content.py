"""What all reports of a scan say: the context of the results, what they amount to, sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from litmus.detectors import Detector
from litmus.detectors.calibration import Calibration
from litmus.detectors.candidates import Candidates
from litmus.metrics import benjamini_hochberg
from litmus.reports.detectors import held_out_sentence, models_text
from litmus.scanning import Failed, Sandbox, ScanResult, Scored, Skipped
from litmus.scanning.baseline import Baseline
from litmus.scanning.results import is_finding, printable

__all__ = [
    "CAVEAT",
    "Entry",
    "ScanContext",
    "annotate",
    "calibration_text",
    "counts_text",
    "digest_text",
    "headline",
    "p_sentence",
    "path_text",
    "probability_text",
    "q_sentence",
    "sandbox_held",
    "sandbox_json",
    "sandbox_sentence",
    "scope_facts",
    "summary",
    "threshold_sentence",
    "verdict_text",
]

CAVEAT: Final = "'No evidence found' does not mean that there is no backdoor."


@dataclass(frozen=True, kw_only=True)
class ScanContext:
    """What the results stand beside: the detectors that could be used, and the options.

    `fail_on`, `strict` and `baseline` say what counts, as in `exit_code`. `quiet`, `show_skipped`,
    `colour` and `width` (columns) are for text alone. Paths are told as seen from `root` where a
    format asks for relative ones. `versions` are those of Litmus and of what it ran on by name,
    `finished` is when the scan ended.
    """

    candidates: Candidates
    fpr: float
    show_skipped: bool = False
    strict: bool = False
    fail_on: str = "suspicious"
    baseline: Baseline | None = None
    quiet: bool = False
    colour: bool = False
    width: int = 200
    root: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: datetime | None = None

    def used(self, results: Sequence[ScanResult]) -> dict[str, Detector]:
        """Return the detectors that judged a file; the one that was named in any case."""
        names = {result.detector for result in results if isinstance(result, Scored)}
        return {
            name: detector
            for name, detector in self.candidates.detectors.items()
            if name in names or self.candidates.named
        }

    def asked(self, name: str, results: Sequence[ScanResult]) -> list[tuple[str, ...]]:
        """Return the sets of parts of a fused detector that judged a file; none of another's."""
        judged = [r for r in results if isinstance(r, Scored) and r.detector == name]
        return list(dict.fromkeys(result.parts for result in judged if result.parts))

    def calibration(self, result: Scored) -> Calibration:
        """Return the calibration that a result was judged by."""
        return self.candidates.detectors[result.detector].calibration_of(result.parts)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A result with what it amounts to among the others.

    `q_value` is of Benjamini and Hochberg (1995), over all files that were scored, NaN for others.
    `accepted` says that the baseline knows it, `counts` that it makes the exit code 1.
    """

    result: ScanResult
    q_value: float
    accepted: bool
    counts: bool


def annotate(results: Sequence[ScanResult], context: ScanContext) -> list[Entry]:
    """Return the results in their order, each with what it amounts to."""
    scored = [i for i, result in enumerate(results) if isinstance(result, Scored)]
    p_values = [result.p_value for result in results if isinstance(result, Scored)]
    q_values = dict(zip(scored, benjamini_hochberg(p_values).tolist(), strict=True))
    entries = []
    for i, result in enumerate(results):
        accepted = context.baseline is not None and context.baseline.accepts(result)
        counts = is_finding(result, context.fail_on) and not accepted
        q_value = q_values.get(i, float("nan"))
        entries.append(Entry(result=result, q_value=q_value, accepted=accepted, counts=counts))
    return entries


def summary(entries: Sequence[Entry]) -> dict[str, int]:
    """Return how many files there are of each kind; accepted ones have their verdict, too."""
    results = [entry.result for entry in entries]
    verdicts = [result.verdict for result in results if isinstance(result, Scored)]
    return {
        "files": len(results),
        "scored": len(verdicts),
        "suspicious": verdicts.count("suspicious"),
        "no_evidence_found": verdicts.count("no evidence found"),
        "inconclusive": verdicts.count("inconclusive"),
        "skipped": sum(isinstance(result, Skipped) for result in results),
        "failed": sum(isinstance(result, Failed) for result in results),
        "accepted": sum(entry.accepted for entry in entries),
    }


def counts_text(entries: Sequence[Entry]) -> str:
    """Return how many files there are of each kind, as text."""
    counts = summary(entries)
    accepted = f", {counts['accepted']} accepted by the baseline" if counts["accepted"] else ""
    return (
        f"{counts['suspicious']} suspicious, {counts['no_evidence_found']} without evidence, "
        f"{counts['inconclusive']} inconclusive, {counts['skipped']} skipped, "
        f"{counts['failed']} failed{accepted}"
    )


def headline(entries: Sequence[Entry]) -> str:
    """Return what a scan found, in one sentence."""
    counts = summary(entries)
    scored, suspicious, unsure = (counts[key] for key in ("scored", "suspicious", "inconclusive"))
    if scored == 1:
        said = "is suspicious" if suspicious else "behaves unlike any that the detector knows"
        return f"The model {said}" if suspicious or unsure else "No evidence of a backdoor found"
    if suspicious:
        return f"{suspicious} of {scored} models {'is' if suspicious == 1 else 'are'} suspicious"
    if unsure:
        return f"{unsure} of {scored} models {'is' if unsure == 1 else 'are'} inconclusive"
    return (
        f"No evidence of a backdoor found in {scored} models" if scored else "No model was scored"
    )


def verdict_text(entry: Entry) -> str:
    """Return a scored entry's verdict, and whether it is accepted."""
    assert isinstance(entry.result, Scored)
    return entry.result.verdict + (" (accepted)" if entry.accepted else "")


def digest_text(result: Scored) -> str:
    """Return the SHA-256 of a model's file, or why there is none."""
    return result.model_sha256 or "none, since a server's model has no file here"


def path_text(result: ScanResult) -> str:
    """Return a result's path without control characters."""
    return printable(str(result.path))


def probability_text(result: Scored) -> str:
    """Return the probability of a backdoor with two digits, and never as a certainty."""
    p = result.probability
    return ">0.99" if p > 0.99 else "<0.01" if p < 0.01 else f"{p:.2f}"


def p_sentence(result: Scored, context: ScanContext) -> str:
    """Return what a result's p-value means at this threshold, in one sentence."""
    calibration = context.calibration(result).deciding(result.member_scores or [result.score])
    n = len(calibration.scores)
    as_suspicious = round(result.p_value * (n + 1)) - 1
    who = {0: "None", 1: "One"}.get(as_suspicious, str(as_suspicious))
    looks = {0: "looks", 1: "looks at least"}.get(as_suspicious, "look at least")
    unknown = "No verdict: p means little for a model that the detector does not know. "
    return (
        f"{unknown if result.verdict == 'inconclusive' else ''}"
        f"{who} of the {n} clean models that the detector was calibrated on {looks} as "
        f"suspicious as this one (p = {result.p_value:.4f}), and a model is called suspicious at "
        f"p <= {context.fpr:g}, which happens to about {100 * context.fpr:.4g} in 100 "
        "clean models of the kind that the detector knows."
    )


def threshold_sentence(context: ScanContext) -> str:
    """Return what the false-positive rate means."""
    return (
        f"A model is suspicious at p <= {context.fpr:g}: about {100 * context.fpr:.4g} % of clean "
        "models like those of the detector's zoo would be, too."
    )


def q_sentence() -> str:
    """Return what q-values are."""
    return (
        "q corrects p for several files at once (Benjamini and Hochberg): if all files with a q up "
        "to some value are called suspicious, at most that share of them is expected to be clean."
    )


def sandbox_sentence(sandboxes: Iterable[Sandbox | None]) -> str:
    """Return what the sandbox of some file's process lacked, in one sentence, or nothing."""
    missing = dict.fromkeys(text for each in sandboxes if each for text in each.missing)
    if not missing:
        return ""
    return f"The sandbox was incomplete here: a hostile file {' and '.join(missing)}."


def sandbox_held(sandboxes: Iterable[Sandbox | None]) -> str:
    """Return the mechanisms that held every file's process, "none", or nothing without one."""
    known = [each for each in sandboxes if each is not None]
    if not known:
        return ""
    common = [name for name in known[0].held if all(name in each.held for each in known)]
    return ", ".join(common) or "none"


def sandbox_json(sandbox: Sandbox | None) -> dict[str, list[str]] | None:
    """Return what held a file's process and what did not, as JSON has it."""
    if sandbox is None:
        return None
    return {"held": list(sandbox.held), "missing": list(sandbox.missing)}


def calibration_text(calibration: Calibration) -> str:
    """Return on how many models a detector was calibrated, and what follows."""
    return f"{models_text(calibration)}, smallest p {calibration.smallest_p_value:.4f}"


def scope_facts(detector: Detector, asked: Sequence[tuple[str, ...]] = ()) -> dict[str, str]:
    """Return what a detector knows, by short names; for each set of its parts that was asked."""
    scope = detector.scope
    by_parts = detector.held_out_by_parts()
    known = {
        ", ".join(parts): (detector.calibration_of(parts), by_parts[parts]) for parts in asked
    } or {"": (detector.calibration, detector.held_out)}
    facts = {
        "detector": detector.name,
        "parts": ", ".join(detector.scope.get("parts", ())),
        "data set": str(scope.get("dataset", "")),
        "input": str(detector.input_spec),
        "architectures": ", ".join(scope.get("architectures", ())),
        "attacks": "; ".join(scope.get("attacks", ())),
        "fitted on": f"{scope['num_models']} models" if "num_models" in scope else "",
    }
    for parts, (calibration, held_out) in known.items():
        with_parts = f" with {parts}" if parts else ""
        facts[f"calibrated on{with_parts}"] = calibration_text(calibration)
        facts[f"held-out AUC{with_parts}"] = (
            held_out_sentence(held_out) if "auc" in held_out else ""
        )
    return {name: printable(value) for name, value in facts.items() if value}
