"""Table 1 of the paper beside ours, as JSON and Markdown."""

from __future__ import annotations

import json

from litmus.reports.evaluation import detection_table, markdown_table
from litmus.reproduction import PAPER_AUC, PAPER_ZOO, Table1

__all__ = ["table1_json", "table1_markdown"]


def table1_json(result: Table1) -> str:
    """Return everything, in the form that all files of `results/` have."""
    content = {
        **result.provenance,
        "zoo": result.zoo,
        "paper": {"auc": PAPER_AUC.get(result.dataset), "zoo": PAPER_ZOO.get(result.dataset)},
        "rows": [row.to_json() for row in result.rows],
        "comparisons": [
            {"first": c.first, "second": c.second, **vars(c.difference)} for c in result.comparisons
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def table1_markdown(result: Table1) -> str:
    """Return a page: the zoo, the table beside the paper's figures, controls, comparisons."""
    zoo, provenance = result.zoo, result.provenance
    seeds = ", ".join(str(seed) for seed in provenance["seeds"])
    sections = [
        f"# Table 1 on {result.dataset}",
        f"`{provenance['command']}` (seeds {seeds}; Litmus {provenance['litmus_version']}, torch "
        f"{provenance['torch_version']}; {provenance['machine']['cpu']}, "
        f"{provenance['machine']['cores']} cores)",
        markdown_table(_zoo_table(result)),
        f"Each detector is one member with M patterns, fitted on {zoo['n_fitted_on']} models "
        f"(triggers {', '.join(zoo['train_triggers'])}), its epoch chosen on others of the same "
        f"split, measured once on {zoo['n_test']} models with triggers that it was not fitted on "
        f"({', '.join(zoo['test_triggers'])}). AUC is the mean over the seeds, with a 95 % "
        "interval from a bootstrap over triggers and models (at AUC 1: the exact binomial bound).",
        markdown_table(_paper_table(result)),
        "Against both kinds of clean control, and at fixed false-positive rates:",
        markdown_table(_without_flags(detection_table(result.rows))),
        "\n".join(
            f"- AUC of {c.first} minus {c.second}: {c.difference.difference:+.3f} "
            f"({c.difference.low:+.3f} to {c.difference.high:+.3f}), "
            f"paired bootstrap p = {c.difference.p_value:.3g}"
            for c in result.comparisons
        ),
        "## Differences from the paper",
        _differences(result),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _zoo_table(result: Table1) -> list[list[str]]:
    zoo, paper = result.zoo, PAPER_ZOO.get(result.dataset, {})
    shared = [
        [label, f"{zoo[key]:.4f}", str(paper.get(key, "-"))]
        for label, key in (
            ("mean clean accuracy", "clean_accuracy"),
            ("mean attack success", "attack_success"),
        )
    ]
    controls = zoo["attack_success_on_controls"]
    return [
        ["backdoored models", "ours", "paper"],
        *shared,
        ["models in all (half of them clean)", str(zoo["n_models"]), "-"],
        ["CPU-seconds a model", f"{zoo['cpu_seconds_per_model']:.1f}", "-"],
        ["clean controls: accuracy", f"{zoo['clean_accuracy_of_controls']:.4f}", "-"],
        ["clean controls: success of the twin's attack", f"{controls:.4f}", "-"],
    ]


def _paper_table(result: Table1) -> list[list[str]]:
    table = [["detector", "M", "AUC, ours (95 %)", "AUC, paper"]]
    for row in result.rows:
        if row.against == "clean":
            paper = PAPER_AUC.get(result.dataset, {}).get(row.detector, {})
            theirs = paper.get(row.num_patterns or 0)
            table.append(
                [
                    row.detector,
                    str(row.num_patterns),
                    f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})",
                    "-" if theirs is None else f"{theirs:.2f}",
                ]
            )
    return table


def _without_flags(table: list[list[str]]) -> list[list[str]]:
    """A single member is not calibrated across folds: leave its nominal rates out."""
    drop = {table[0].index(name) for name in ("flagged clean / backdoored", "group")}
    return [[cell for i, cell in enumerate(line) if i not in drop] for line in table]


def _differences(result: Table1) -> str:
    recipe = result.provenance["recipe"]
    architectures = ", ".join(
        f"{a['name']} ({', '.join(f'{k} {v}' for k, v in a.items() if k != 'name')})"
        for a in recipe["architectures"]
    )
    images = recipe["dataset"]["train_images"] or "all"
    return "\n".join(
        [
            f"- Networks: {architectures}; the paper says only 'similar to VGG'. A `stem_stride` "
            "of 2 quarters the cost of all later layers.",
            f"- Training: {images} images a model, {recipe['training']['epochs']} epoch(s); the "
            "paper does not say.",
            f"- Sizes: {result.zoo['n_models']} models, scale {result.provenance['scale']:g} of "
            f"the recipe's {2 * recipe['twins']}.",
            "- Features are floored log-probabilities; the paper's are logits.",
            "- Every clean model is a control: trained on as many extra images as its backdoored "
            "twin, plain copies (half) or triggered with their label kept (half). The paper's "
            "clean models are trained on clean images alone.",
        ]
    )
