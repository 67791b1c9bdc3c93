"""A zoo's models as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from litmus.reports.console import render_table

if TYPE_CHECKING:
    from litmus.zoo import Zoo, ZooEntry
    from litmus.zoo.plan import Nodes, Plan

__all__ = ["plan_as_json", "plan_text", "zoo_table"]


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


def plan_text(plan: Plan, cluster: tuple[Nodes, ...]) -> str:
    """Return what a zoo would cost, with what that rests on."""
    workers = sum(nodes.count * nodes.workers for nodes in cluster)
    rows = [
        [name, str(number), f"{seconds / number:.1f}", f"{seconds / 3600:.2f}"]
        for name, (number, seconds) in sorted(plan.families.items())
    ]
    header = ["architecture", "models", "CPU-seconds each", "CPU-hours"]
    return (
        render_table(header, rows)
        + f"""
{plan.recipe}: {plan.models} models asked for; {plan.attempts:.0f} trained, {plan.accepted:.0f}
accepted, if {plan.acceptance:.0%} of the attempts pass their gate
{plan.flops:.3g} operations; {plan.cpu_hours:.2f} CPU-hours of this machine, whose core attains
{plan.gflops:.1f} GFLOP/s in a plain convolution; the longest model takes {plan.longest:.0f} s
{plan.hours(cluster):.2f} hours on {workers} workers that do nothing else
{plan.worker_bytes / 1e9:.2f} GB of memory for each worker, {plan.disk_bytes / 1e9:.3f} GB of disk
"""
    )


def plan_as_json(plan: Plan, cluster: tuple[Nodes, ...]) -> dict[str, Any]:
    """Return a plan and the machines that it is for."""
    return {
        **asdict(plan),
        "cpu_hours": plan.cpu_hours,
        "hours": plan.hours(cluster),
        "nodes": [asdict(nodes) for nodes in cluster],
    }
