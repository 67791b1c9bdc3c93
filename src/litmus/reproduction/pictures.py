"""Figures 1, 2 and 3: patterns and what models answer, triggers, poisoned images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.attacks import Attack
from litmus.datasets import Split
from litmus.formats import zoo_file
from litmus.formats.zoo_file import ZooModel
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Result, of_kind
from litmus.reproduction.study import Study
from litmus.reproduction.tasks import FitTask, Task, fitted_detector
from litmus.seeds import torch_generator
from litmus.zoo import ZooEntry
from litmus.zoo.expansion import expand
from litmus.zoo.pictures import trigger_pictures

__all__ = ["Figure1", "Figure2", "Figure3", "figure1", "figure1_tasks", "figure2", "figure3"]

Labelled = tuple[str, NDArray[Any]]
_EXAMPLES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Figure1(Result):
    """Patterns (m, c, h, w), and log-probabilities (m, k) and score of two test models by label."""

    dataset: str
    class_names: tuple[str, ...]
    patterns: NDArray[Any]
    answers: Mapping[str, NDArray[np.float64]]
    scores: Mapping[str, float]
    models: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Figure2(Result):
    """Triggers (c, size, size) by name, and one backdoored model on clean and triggered images.

    `clean_accuracy` (k,) is by class; `attack_success` the share of triggered images of the
    source class that become the target.
    """

    dataset: str
    class_names: tuple[str, ...]
    triggers: tuple[Labelled, ...]
    model: str
    trigger: str
    clean_accuracy: NDArray[np.float64]
    source_class: int
    target_class: int
    attack_success: float
    examples: tuple[Labelled, ...]


@dataclass(frozen=True, kw_only=True)
class Figure3(Result):
    """Images with triggers at the places that the recipe's attack draws, labelled."""

    dataset: str
    examples: tuple[Labelled, ...]


def figure1_tasks(study: Study) -> list[Task]:
    """Return one ULP fit."""
    return [_fit(study)]


def figure1(study: Study, answers: Answers, on_progress: Progress) -> Figure1:
    """Return the fitted patterns and what the first clean and backdoored test model answer."""
    task = _fit(study)
    detector = fitted_detector(answers[task])
    chosen = {
        "clean model": of_kind(task.test, backdoored=False)[0],
        "backdoored model": of_kind(task.test, backdoored=True)[0],
    }
    loaded = {label: zoo_file.load(entry.path) for label, entry in chosen.items()}
    measured = {label: detector.measure(model) for label, model in loaded.items()}
    return Figure1(
        provenance=study.provenance(seeds=study.seeds[:1]),
        dataset=study.recipes[study.name].dataset.name,
        class_names=loaded["clean model"].classes,
        patterns=detector.queries,
        answers={label: np.array(m.log_probs) for label, m in measured.items()},
        scores={label: m.score for label, m in measured.items()},
        models={label: entry.id for label, entry in chosen.items()},
    )


def figure2(study: Study, answers: Answers, on_progress: Progress) -> Figure2:
    """Return the recipe's triggers and how its first backdoored test model does, class by class."""
    from litmus.training import predict

    zoo = study.zoos[study.name]
    entry = of_kind(zoo.split("test"), backdoored=True)[0]
    model = zoo_file.load(entry.path)
    test = study.images[study.name].load().test
    correct = (predict(model.torch_module(), test.images) == test.labels).numpy()
    labels = test.labels.numpy()
    attack = entry.spec.build_attack()
    success, examples = _triggered(model, attack, test, entry)
    return Figure2(
        provenance=study.provenance(seeds=()),
        dataset=study.recipes[study.name].dataset.name,
        class_names=model.classes,
        triggers=tuple(trigger_pictures(study.recipes[study.name])),
        model=entry.id,
        trigger=entry.trigger_id,
        clean_accuracy=np.array(
            [correct[labels == k].mean() for k in range(zoo.input_spec.num_classes)]
        ),
        source_class=entry.spec.attack["source_class"],
        target_class=entry.spec.attack["target_class"],
        attack_success=success,
        examples=examples,
    )


def figure3(study: Study, answers: Answers, on_progress: Progress) -> Figure3:
    """Return one triggered image for each of the recipe's first backdoored models."""
    dataset = study.images[study.name].load()
    specs = expand(study.recipes[study.name], dataset.input_spec)
    examples = []
    for spec in [spec for spec in specs if spec.backdoored][:_EXAMPLES]:
        attack = spec.build_attack()
        victims = attack.victims(dataset.test)
        generator = torch_generator(spec.seed, "pictures")
        stamped = attack.stamp(
            dataset.test[victims[spec.twin % len(victims)][None]].images, generator
        )
        names = [
            dataset.class_names[spec.attack[role]] for role in ("source_class", "target_class")
        ]
        examples.append((f"{names[0]} to {names[1]}\n{attack.trigger_id}", stamped[0].numpy()))
    return Figure3(
        provenance=study.provenance(seeds=()),
        dataset=study.recipes[study.name].dataset.name,
        examples=tuple(examples),
    )


def _fit(study: Study) -> FitTask:
    zoo = study.zoos[study.name]
    m = max(study.num_patterns)
    return study.fits(study.name, "ulp", m, zoo.split("train"), zoo.split("test"))[0]


def _triggered(
    model: ZooModel, attack: Attack, test: Split, entry: ZooEntry
) -> tuple[float, tuple[Labelled, ...]]:
    """Return attack success, and an image of the source class without and with the trigger."""
    from litmus.training import predict

    victims = test[attack.victims(test)]
    stamped = attack.stamp(victims.images, torch_generator(entry.spec.seed, "measure"))
    answers = {
        "clean": (victims.images, predict(model.torch_module(), victims.images)),
        "triggered": (stamped, predict(model.torch_module(), stamped)),
    }
    right = answers["clean"][1] == victims.labels
    turned = attack.labels.succeeded(answers["triggered"][1], victims.labels)
    shown = int((right & turned).int().argmax())
    examples = tuple(
        (f"{label}: {model.classes[int(predicted[shown])]}", images[shown].numpy())
        for label, (images, predicted) in answers.items()
    )
    return turned.float().mean().item(), examples
