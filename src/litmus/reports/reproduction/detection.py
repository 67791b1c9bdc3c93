"""Table 1 and Figure 5 beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litmus.reports.evaluation import markdown_table
from litmus.reports.reproduction.pages import (
    as_json,
    comparison_json,
    comparison_lines,
    left_out,
    opening,
    page,
    plain_rows,
    with_interval,
)
from litmus.reproduction.detection import DatasetTable, Figure5, Table1
from litmus.reproduction.paper import PAPER_ACCURACY, PAPER_ZOO, paper_auc

__all__ = ["figure5_files", "table1_files"]


def table1_files(result: Table1) -> dict[str, str]:
    """Return `table1.json` and `table1.md`."""
    content = as_json(
        result,
        datasets={table.name: _dataset_json(table) for table in result.datasets},
        rows=[
            {**row.to_json(), "paper_auc": paper_auc(row.dataset, row.detector, row.num_patterns)}
            for table in result.datasets
            for row in table.rows
        ],
    )
    text = page(
        opening(result, "Table 1"),
        left_out(result),
        *(section for table in result.datasets for section in _sections(result, table)),
        "## Differences from the paper, on all data sets",
        _SHARED_DIFFERENCES,
    )
    return {"table1.json": content, "table1.md": text}


def figure5_files(result: Figure5) -> dict[str, str]:
    """Return `figure5.json`, `figure5.md` and `figure5.svg`."""
    from litmus.figures import roc_panels

    content = as_json(
        result,
        rows=[row.to_json() for row in result.rows],
        curves={
            name: {
                label: {"fpr": fpr.tolist(), "tpr": tpr.tolist()}
                for label, (fpr, tpr) in curves.items()
            }
            for name, curves in result.curves.items()
        },
    )
    header = ["data set", "detector", "M", "AUC, ours (95 %)", "AUC, paper", "models"]
    table = [
        [
            row.dataset,
            row.detector,
            "-" if row.num_patterns is None else str(row.num_patterns),
            with_interval(row),
            _or_dash(paper_auc(row.dataset, row.detector, row.num_patterns), ".2f"),
            f"{row.n_clean} + {row.n_backdoored}",
        ]
        for row in result.rows
    ]
    text = page(
        opening(result, "Figure 5: ROC curves"),
        left_out(result),
        "![ROC curves](figure5.svg)",
        "The curves are of the scores' mean over seeds, on models with unseen triggers; the AUCs "
        "are means over the seeds' own.",
        markdown_table([header, *table]),
    )
    return {
        "figure5.json": content,
        "figure5.md": text,
        "figure5.svg": roc_panels(result.curves),
    }


_SHARED_DIFFERENCES = """\
- Features are floored log-probabilities; the paper's are logits.
- Every clean model is a control: trained on as many extra images as its backdoored twin, plain
  copies (half) or triggered with their label kept (half). The paper's clean models are trained
  on clean images alone.
- The attack-based baseline drops hopeless pairs by successive halving; the paper optimises all
  of them to the end. Neural Cleanse is not in the paper's table.
- The inversion detectors measure the first test models of each kind, not all of them; n is in
  the table."""


def _dataset_json(table: DatasetTable) -> dict[str, Any]:
    return {
        "dataset": table.dataset,
        "zoo": dict(table.zoo),
        "paper": PAPER_ZOO.get(table.dataset),
        "cpu_seconds": dict(table.cost),
        "comparisons": comparison_json(table.comparisons),
    }


def _sections(result: Table1, table: DatasetTable) -> list[str]:
    zoo = table.zoo
    return [
        f"## {table.name}",
        markdown_table(_zoo_table(table)),
        f"ULP and noise: one member with M patterns, fitted on {zoo['n_fitted_on']} models "
        f"(triggers {', '.join(zoo['train_triggers'])}), its epoch chosen on others of the same "
        f"split, measured once on {zoo['n_test']} models with triggers that it was not fitted on "
        f"({', '.join(zoo['test_triggers'])}). AUC is the mean over the seeds, with a 95 % "
        "interval from a bootstrap over triggers and models (at AUC 1: the exact binomial bound). "
        "Detection accuracy is at a probability of one half.",
        markdown_table(_paper_table(table)),
        "Against both kinds of clean control, and at fixed false-positive rates:",
        markdown_table(plain_rows(table.rows)),
        "Paired on the models that both detectors scored:",
        comparison_lines(table.comparisons),
        f"Differences from the paper on {table.name}:",
        _differences(result, table),
    ]


def _zoo_table(table: DatasetTable) -> list[list[str]]:
    zoo, paper = table.zoo, PAPER_ZOO.get(table.dataset, {})
    return [
        ["backdoored models", "ours", "paper"],
        ["mean clean accuracy", f"{zoo['clean_accuracy']:.4f}", _said(paper, "clean_accuracy")],
        ["mean attack success", f"{zoo['attack_success']:.4f}", _said(paper, "attack_success")],
        ["models in all (half of them clean)", str(zoo["n_models"]), "-"],
        ["models that failed their gate", str(zoo["n_rejected"]), "-"],
        [
            "CPU-seconds an accepted model",
            _or_dash(zoo["cpu_seconds_per_accepted_model"], ".1f"),
            "-",
        ],
        ["training FLOPs a model", f"{zoo['training_flops_per_model']:.2e}", "-"],
        ["clean controls: accuracy", f"{zoo['clean_accuracy_of_controls']:.4f}", "-"],
        [
            "clean controls: success of the twin's attack",
            f"{zoo['attack_success_on_controls']:.4f}",
            "-",
        ],
    ]


def _paper_table(table: DatasetTable) -> list[list[str]]:
    lines = [
        ["detector", "M", "AUC, ours (95 %)", "AUC, paper", "accuracy, ours", "accuracy, paper",
         "models", "CPU-seconds"]
    ]  # fmt: skip
    for row in table.rows:
        if row.against != "clean":
            continue
        m = row.num_patterns
        label = row.detector if m is None else f"{row.detector}, M = {m}"
        accuracy = PAPER_ACCURACY.get((row.dataset, m or 0)) if row.detector == "ulp" else None
        lines.append(
            [
                row.detector,
                _or_dash(m, "d"),
                with_interval(row),
                _or_dash(paper_auc(row.dataset, row.detector, m), ".2f"),
                _or_dash(row.accuracy, ".3f"),
                _or_dash(accuracy, ".3f"),
                f"{row.n_clean} + {row.n_backdoored}",
                f"{table.cost[label]:.1f} a {'model' if m is None else 'fit'}",
            ]
        )
    return lines


def _differences(result: Table1, table: DatasetTable) -> str:
    recipe = result.provenance["recipes"][table.name]
    architectures = "; ".join(
        f"{a['name']} ({', '.join(f'{k} {v}' for k, v in a.items() if k != 'name')})"
        for a in recipe["architectures"]
    )
    images = recipe["dataset"]["train_images"] or "all"
    return "\n".join(
        [
            f"- Networks: {architectures}; the paper says only 'similar to VGG'.",
            f"- Training: {images} images a model, {recipe['training']['epochs']} epoch(s); the "
            "paper does not say.",
            f"- Sizes: {table.zoo['n_models']} models, scale "
            f"{result.provenance['scale'][table.name]:g} of the recipe's {2 * recipe['twins']}.",
        ]
    )


def _said(paper: Mapping[str, float], key: str) -> str:
    return str(paper.get(key, "-"))


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
