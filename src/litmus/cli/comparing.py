"""The verb `compare`: variants of a detector on groups that their fits left out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litmus.artifacts import machine_facts, write_atomically
from litmus.cli.options import Data, NominalRate, ZooFolder, choice, given_command, open_zoo
from litmus.cli.progress import bar
from litmus.errors import UsageError

if TYPE_CHECKING:
    from litmus.evaluation import VariantPlan
    from litmus.zoo import Zoo

__all__ = ["compare"]


def compare(
    zoo: ZooFolder,
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A TOML file of variants and groups.")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE.json", help="Results; a rerun goes on there."),
    ],
    scale: Annotated[
        float, typer.Option(help="Only the first part of the recipe's twins, 0.2 say.")
    ] = 1.0,
    fpr: NominalRate = 0.05,
    format_: Annotated[
        str, typer.Option("-f", "--format", help="What is printed: text, json or markdown.")
    ] = "text",
    seed: Annotated[int, typer.Option(help="Seed of fits and bootstrap.")] = 0,
    data: Data = None,
) -> None:
    """Compare variants of detectors by leaving groups of a zoo's training models out.

    Each variant of the plan is fitted without each group and judges it. Results are written after
    each variant, as JSON and as Markdown beside it. A variant that the file has already, measured
    in the same way on the same models, is not measured again; others in it are replaced. Test
    models are not touched.
    """
    import litmus
    from litmus.evaluation import load_plan
    from litmus.reports.variants import VARIANT_REPORTS

    choice("--format", format_, tuple(VARIANT_REPORTS))
    if output.suffix != ".json":
        raise UsageError("not a JSON file's name", expected="FILE.json", got=output, where="-o")
    chosen = load_plan(plan)
    opened = open_zoo(zoo, data=data).first(scale)
    known = _known(output)
    provenance = {
        "command": given_command(),
        "recipe": opened.recipe,
        "seeds": [seed],
        "machine": machine_facts(),
        "litmus_version": litmus.__version__,
    }
    facts = {
        variant.name: {
            "variant": variant.name,
            "detector": variant.detector,
            "settings": chosen.settings_of(variant),
            "measure": _measure(opened, chosen, fpr, seed, litmus.__version__),
        }
        for variant in chosen.variant
    }
    # All that is known is in the file from the first writing on: a later stop loses none of it.
    found = {
        name: record
        for name, own in facts.items()
        for record in known
        if {key: record.get(key) for key in own} == own
    }
    for name, own in facts.items():
        if name not in found:
            found[name] = _measured(opened, chosen, own, fpr, seed)
        records = [found[each] for each in facts if each in found]
        write_atomically(output, VARIANT_REPORTS["json"](records, provenance))
        markdown = VARIANT_REPORTS["markdown"](records, provenance)
        write_atomically(output.with_suffix(".md"), markdown)
    typer.echo(VARIANT_REPORTS[format_](records, provenance), nl=False)


def _known(path: Path) -> list[Mapping[str, Any]]:
    """Return the records of an earlier run; raises UsageError where the file is of another kind."""
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["variants"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise UsageError(
            "not the results of a comparison",
            expected="a file that `litmus compare` wrote, or none",
            got=path,
            where="-o",
        ) from fault


def _measure(zoo: Zoo, plan: VariantPlan, fpr: float, seed: int, version: str) -> dict[str, Any]:
    """All that a record depends on besides its variant, as JSON has it."""
    return {
        "leave_out": plan.leave_out,
        "groups": list(plan.groups),
        "fpr": fpr,
        "seed": seed,
        "litmus_version": version,
        "models": sorted(entry.id for entry in zoo.split("train")),
    }


def _measured(
    zoo: Zoo, plan: VariantPlan, facts: Mapping[str, Any], fpr: float, seed: int
) -> dict[str, Any]:
    from litmus.detectors import fit
    from litmus.evaluation import leave_out
    from litmus.reports.variants import variant_record

    fitting = partial(fit, detector=facts["detector"], seed=seed, **facts["settings"])
    start = time.process_time()
    with bar(facts["variant"]) as progress:
        result = leave_out(
            zoo,
            fitting,
            by=plan.leave_out,
            fpr=fpr,
            seed=seed,
            only=plan.groups,
            on_group=lambda group, done, total: progress(done, total, group),
        )
    return variant_record(result, **facts, cpu_seconds=time.process_time() - start)
