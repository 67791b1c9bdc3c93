"""Section 4.4: how long one network takes, by every detector, on one thread of this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from litmus.formats import zoo_file
from litmus.formats.zoo_file import ZooModel
from litmus.inversion import ClassImages, PatchSettings, all_pairs, invert_patches
from litmus.reproduction.pool import Answers, Progress
from litmus.reproduction.results import Result
from litmus.reproduction.study import Study
from litmus.reproduction.tasks import Task, Work, fitted_detector, inversion_work
from litmus.zoo import ZooEntry

__all__ = ["Timing", "TimingRow", "timing", "timing_tasks", "timing_work"]

_MODELS: Final = 3
_REPEATS: Final = 50
"""Of what takes milliseconds."""
_LOOP_PAIRS: Final = 90
"""The plain loop goes through so many pairs, spread over all of them; its time is scaled up."""


@dataclass(frozen=True, kw_only=True)
class TimingRow:
    """Wall seconds of one thread for one network that is already loaded: the median of `models`.

    `times_ulp` is how many times as long as ULP that is.
    """

    dataset: str
    detector: str
    num_patterns: int | None
    seconds: float
    models: int
    times_ulp: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Timing(Result):
    """The timings of all data sets, taken in one run."""

    rows: tuple[TimingRow, ...]


def timing_tasks(study: Study) -> list[Task]:
    """Return the fits: one ULP and one noise detector for each data set."""
    return [task for name in study.names for task in _fits(study, name).values()]


def timing_work(study: Study) -> list[tuple[str, Work]]:
    """Return what is measured here and now, by recipe: never in parallel, never cached."""
    work = []
    for name in study.names:
        classes = study.zoos[name].input_spec.num_classes
        entry = study.zoos[name].entries[0]
        for detector in ("attack_based", "neural_cleanse"):
            settings = study.measurement(name, detector, entry).settings
            one = inversion_work(detector, settings, classes)
            work.append((name, Work(passes=_MODELS * one.passes, images=_MODELS * one.images)))
        settings = study.measurement(name, "attack_based", entry).settings
        steps = min(_LOOP_PAIRS, classes * (classes - 1)) * settings["steps"]
        work.append((name, Work(passes=steps, images=steps * settings["batch_images"])))
    return work


def timing(study: Study, answers: Answers, on_progress: Progress) -> Timing:
    """Time every detector on the first test models of each data set, one after the other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows: list[TimingRow] = []
        for i, name in enumerate(study.names):
            on_progress(i, len(study.names), name)
            rows += _rows(study, name, answers)
        on_progress(len(study.names), len(study.names), "")
    finally:
        torch.set_num_threads(threads)
    return Timing(provenance=study.provenance(seeds=study.seeds[:1]), rows=tuple(rows))


def _fits(study: Study, name: str) -> dict[str, Task]:
    zoo = study.zoos[name]
    m = max(study.num_patterns)
    return {
        detector: study.fits(name, detector, m, zoo.split("train"), zoo.split("test"))[0]
        for detector in ("ulp", "noise")
    }


def _rows(study: Study, name: str, answers: Answers) -> list[TimingRow]:
    entries = study.zoos[name].split("test")[:_MODELS]
    models = [zoo_file.load(entry.path) for entry in entries]
    measured: dict[str, tuple[float, int, str]] = {}
    for label, task in _fits(study, name).items():
        fitted = fitted_detector(answers[task])
        seconds = _median(models, fitted.measure, repeats=_REPEATS)
        measured[label] = (seconds, len(models), "")
    for label in ("attack_based", "neural_cleanse"):
        detector = study.measurement(name, label, entries[0]).build()
        measured[label] = (_median(models, detector.measure), len(models), "")
    seconds, note = _plain_loop(study, name, entries[0], models[0])
    measured["attack_based, pair by pair"] = (seconds, 1, note)
    return [
        TimingRow(
            dataset=study.recipes[name].dataset.name,
            detector=label,
            num_patterns=max(study.num_patterns) if label in ("ulp", "noise") else None,
            seconds=seconds,
            models=count,
            times_ulp=seconds / measured["ulp"][0],
            note=note,
        )
        for label, (seconds, count, note) in measured.items()
    ]


def _median(
    models: list[ZooModel], measure: Callable[[ZooModel], object], *, repeats: int = 1
) -> float:
    """The median over models, and over repeats after a first one that does not count."""
    times = []
    for model in models:
        if repeats > 1:
            measure(model)
        for _ in range(repeats):
            start = time.perf_counter()
            measure(model)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _plain_loop(study: Study, name: str, entry: ZooEntry, model: ZooModel) -> tuple[float, str]:
    """Optimise one pair after the other, none dropped, as the paper words it."""
    task = study.measurement(name, "attack_based", entry, keep=1.0)
    settings = PatchSettings(**task.settings)
    spec = entry.spec.input_spec
    clean = ClassImages.draw(task.images.load().test, spec, per_class=settings.images_per_class)
    pairs = all_pairs(spec.num_classes)
    chosen = pairs[:: -(-len(pairs) // _LOOP_PAIRS)]
    gradients = model.gradients()
    start = time.perf_counter()
    for pair in chosen:
        invert_patches(gradients, clean, settings, pairs=[pair])
    seconds = (time.perf_counter() - start) * len(pairs) / len(chosen)
    sample = f", measured on {len(chosen)} of them" if len(chosen) < len(pairs) else ""
    return seconds, f"{len(pairs)} pairs without halving{sample}"
