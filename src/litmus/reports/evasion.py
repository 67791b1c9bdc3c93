"""What evading a detector costs and brings, as text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import fill
from typing import Any

from litmus.evaluation import DetectionRow
from litmus.evasion import Evasion, Measured, Tuned
from litmus.reports.console import render_table
from litmus.reports.evaluation import judged_model, markdown_table

__all__ = ["evasion_files", "evasion_text"]

_HOW = (
    "{n} backdoored models of the test split of `{zoo}` and their clean controls were trained on, "
    "each on its own data (epochs {epochs}, batches of {batch_size}, Adam with a learning rate of "
    "up to {learning_rate:g}). To the loss of those that evade was added {weight:g} times {aimed}: "
    "the attacker has the detector's file. The other models had the cross-entropy alone, and so "
    "had the clean ones that stand beside those that evade."
)
_AIMS = {
    "low": "the softplus of the log-odds of a backdoor according to `{detector}`",
    "clean": "the distance between its score by `{detector}` and that of the median clean model",
}
_NOTES = (
    "AUC is over the models that passed the gate: one that lost its backdoor evades nothing.",
    "Attack success of clean models is how often their twin's trigger works on them.",
    "`flagged` is at a nominal false-positive rate of {fpr:g}.",
)
_REFITTED = (
    "`refitted` is `{detector}` with its settings and seed, fitted on its zoo and on {bad} evading "
    "models and {clean} fine-tuned clean ones of other twins, with other triggers. The models that "
    "it is measured on evade `{detector}`, not `refitted`: an attacker may go on."
)
_NOT_ATTACKED = "Not attacked, for want of a gradient: {not_attacked}."


def evasion_files(result: Evasion, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return `evasion-low.json` and `evasion-low.md`, or with the attack's other aim."""
    stem = f"evasion-{result.plan.settings.aim}"
    return {
        f"{stem}.json": _json(result, provenance),
        f"{stem}.md": _markdown(result, provenance),
    }


def evasion_text(result: Evasion) -> str:
    """Return both tables for a terminal."""
    tables = (_cost_table(result.measured), _detection_table(result.rows))
    return "".join(render_table(table[0], table[1:]) for table in tables)


def _json(result: Evasion, provenance: Mapping[str, Any]) -> str:
    plan = result.plan
    content = {
        **provenance,
        "detector": result.detector,
        "attacked": result.attacked,
        "not_attacked": result.not_attacked,
        "fine_tuning": asdict(plan.settings),
        "fpr": result.fpr,
        "n_added": result.n_added,
        "measured": [asdict(measured) for measured in result.measured],
        "rows": [row.to_json() for row in result.rows],
        "tuned": [_tuned(tuned) for tuned in result.tuned],
        "models": [
            {"detector": label, "group": group, **judged_model(model)}
            for label, groups in result.models.items()
            for group, models in groups.items()
            for model in models
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def _tuned(tuned: Tuned) -> dict[str, Any]:
    assert tuned.spec.fine_tuning is not None
    return {
        "id": tuned.spec.id,
        "before": tuned.before.id,
        "split": tuned.spec.split,
        "treatment": tuned.spec.treatment,
        "trigger": tuned.before.trigger_id,
        "weight": tuned.spec.fine_tuning.weight,
        "clean_accuracy_before": tuned.before.clean_accuracy,
        "clean_accuracy": tuned.clean_accuracy,
        "attack_success_before": tuned.before.attack_success,
        "attack_success": tuned.attack_success,
        "rejection": tuned.rejection,
    }


def _markdown(result: Evasion, p: Mapping[str, Any]) -> str:
    plan = result.plan
    bad, clean = result.n_added or (0, 0)
    texts = {
        **asdict(plan.settings),
        "n": len(plan.measured),
        "zoo": plan.zoo.recipe["name"],
        "detector": result.detector,
        "aimed": _AIMS[plan.settings.aim].format(detector=result.detector),
        "fpr": result.fpr,
        "bad": bad,
        "clean": clean,
        "not_attacked": ", ".join(result.not_attacked),
    }
    notes = list(_NOTES)
    notes += [_REFITTED] if result.n_added else []
    notes += [_NOT_ATTACKED] if result.not_attacked else []
    sections = [
        f"# Evading `{result.detector}`",
        f"`{p['command']}` (seeds {', '.join(map(str, p['seeds']))}; Litmus "
        f"{p['litmus_version']}, torch {p['torch_version']}; {p['machine']['cpu']}, "
        f"{p['machine']['cores']} cores)",
        fill(_HOW.format(**texts), 100),
        "## What it costs",
        markdown_table(_cost_table(result.measured)),
        "## What detectors say",
        markdown_table(_detection_table(result.rows)),
        "## What to know",
        "\n".join(
            fill(note.format(**texts), 100, initial_indent="- ", subsequent_indent="  ")
            for note in notes
        ),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _cost_table(measured: Sequence[Measured]) -> list[list[str]]:
    header = ["models", "n", "pass the gate", "clean accuracy", "attack success"]
    return [
        header,
        *(
            [
                f"{'backdoored' if m.backdoored else 'clean'}, {m.group}",
                str(m.n),
                f"{m.passed:.2f}",
                f"{m.clean_accuracy:.4f}",
                f"{m.attack_success:.4f}",
            ]
            for m in measured
        ),
    ]


def _detection_table(rows: Sequence[DetectionRow]) -> list[list[str]]:
    header = ["detector", "models", "AUC (95 %)", "flagged clean / backdoored",
              "inconclusive clean / backdoored", "clean + backdoored"]  # fmt: skip
    return [
        header,
        *(
            [
                row.detector,
                row.group,
                f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})",
                f"{row.flagged_clean:.2f} / {row.flagged_backdoored:.2f}",
                f"{row.inconclusive_clean:.2f} / {row.inconclusive_backdoored:.2f}",
                f"{row.n_clean} + {row.n_backdoored}",
            ]
            for row in rows
        ),
    ]
