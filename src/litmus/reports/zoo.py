"""A zoo's models as text."""

from __future__ import annotations

import numpy as np

from litmus.reports.console import render_table
from litmus.zoo import Zoo, ZooEntry

__all__ = ["zoo_table"]


def zoo_table(zoo: Zoo) -> str:
    """Return one line a model and a summary."""
    header = [
        "id",
        "split",
        "treatment",
        "architecture",
        "attack",
        "trigger",
        "clean",
        "attack success",
    ]
    rows = [
        [
            entry.id,
            entry.spec.split,
            _treatment(entry),
            entry.architecture,
            entry.attack,
            entry.trigger_id,
            f"{entry.clean_accuracy:.4f}",
            f"{entry.attack_success:.4f}",
        ]
        for entry in zoo.entries
    ]
    backdoored = [entry for entry in zoo.entries if entry.backdoored]
    summary = (
        f"{len(zoo.entries)} models of {zoo.input_spec}: {len(backdoored)} backdoored, mean clean "
        f"accuracy {np.mean([e.clean_accuracy for e in zoo.entries]):.4f}"
    )
    if backdoored:
        success = np.mean([entry.attack_success for entry in backdoored])
        summary += f", mean attack success of the backdoored {success:.4f}"
    return render_table(header, rows) + summary + "\n"


def _treatment(entry: ZooEntry) -> str:
    tuning = entry.spec.fine_tuning
    if tuning is None:
        return entry.spec.treatment
    return f"{entry.spec.treatment}, {'evading' if tuning.weight else 'fine-tuned'}"
