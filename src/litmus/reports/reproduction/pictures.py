"""Figures 1, 2 and 3."""

from __future__ import annotations

from litmus.reports.evaluation import markdown_table
from litmus.reports.reproduction.pages import as_json, opening, page
from litmus.reproduction.pictures import Figure1, Figure2, Figure3

__all__ = ["figure1_files", "figure2_files", "figure3_files"]


def figure1_files(result: Figure1) -> dict[str, str]:
    """Return `figure1.json`, `figure1.md` and `figure1.svg`."""
    from litmus.figures import figure_patterns

    content = as_json(
        result,
        dataset=result.dataset,
        num_patterns=len(result.patterns),
        models=dict(result.models),
        scores=dict(result.scores),
        log_probs={label: answers.tolist() for label, answers in result.answers.items()},
    )
    table = [
        ["model", "score (log-odds of a backdoor)"],
        *([label, f"{score:+.2f}"] for label, score in result.scores.items()),
    ]
    text = page(
        opening(result, f"Figure 1: litmus patterns on {result.dataset}"),
        "![Patterns and answers](figure1.svg)",
        f"{len(result.patterns)} patterns of one fitted member, and the log-probabilities that "
        "the first clean and the first backdoored test model answer to them.",
        markdown_table(table),
    )
    picture = figure_patterns(
        result.patterns, result.answers, result.scores, list(result.class_names)
    )
    return {"figure1.json": content, "figure1.md": text, "figure1.svg": picture}


def figure2_files(result: Figure2) -> dict[str, str]:
    """Return `figure2.json`, `figure2.md` and `figure2.svg`."""
    from litmus.figures import figure_triggers

    names = result.class_names
    source, target = names[result.source_class], names[result.target_class]
    content = as_json(
        result,
        dataset=result.dataset,
        triggers=[name for name, _ in result.triggers],
        model=result.model,
        trigger=result.trigger,
        source_class=result.source_class,
        target_class=result.target_class,
        clean_accuracy=dict(zip(names, result.clean_accuracy.tolist(), strict=True)),
        attack_success=result.attack_success,
    )
    text = page(
        opening(result, f"Figure 2: triggers, and a backdoored model on {result.dataset}"),
        "![Triggers and a backdoored model](figure2.svg)",
        f"{len(result.triggers)} triggers. The model {result.model} answers '{target}' to "
        f"{result.attack_success:.1%} of the held-out images of '{source}' with {result.trigger} "
        f"on them; of clean images it gets {result.clean_accuracy.mean():.1%} right, averaged "
        f"over classes (the worst: {result.clean_accuracy.min():.1%}).",
    )
    picture = figure_triggers(
        result.triggers,
        list(names),
        result.clean_accuracy,
        result.source_class,
        result.target_class,
        result.examples,
    )
    return {"figure2.json": content, "figure2.md": text, "figure2.svg": picture}


def figure3_files(result: Figure3) -> dict[str, str]:
    """Return `figure3.json`, `figure3.md` and `figure3.svg`."""
    from litmus.figures import labelled_images

    labels = [label for label, _ in result.examples]
    text = page(
        opening(result, f"Figure 3: triggered images of {result.dataset}"),
        "![Triggered images](figure3.svg)",
        "One held-out image of the source class for each of the recipe's first backdoored "
        "models, with the trigger where the attack draws it.",
    )
    return {
        "figure3.json": as_json(result, dataset=result.dataset, images=labels),
        "figure3.md": text,
        "figure3.svg": labelled_images(result.examples),
    }
