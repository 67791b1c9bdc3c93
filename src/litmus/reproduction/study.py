"""What an experiment works on: recipes, their zoos as they are or will be, images, sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import litmus
from litmus.artifacts import machine_facts
from litmus.detectors import DETECTORS
from litmus.detectors.inverting import InversionDetector
from litmus.detectors.patterns import PatternDetector
from litmus.errors import DataError, UsageError, ZooError
from litmus.reproduction.tasks import FitTask, ImageSource, MeasureTask
from litmus.zoo import Recipe, Zoo, ZooEntry, load_recipe
from litmus.zoo.expansion import expand
from litmus.zoo.spec import ModelSpec
from litmus.zoo.store import finished_ids, read_entry

__all__ = ["Study", "named_numbers", "open_study", "parse_scales"]

N = TypeVar("N", int, float)

MIN_TWINS: Final = 10
"""Five folds need two twins each."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that an experiment's tasks follow from.

    Mappings are by the recipe's name, that of its file. `zoos` have an entry for every model
    that is there or, at its first attempt, will be; `missing` counts the latter. `left_out` says
    why a recipe could not be had. `attack_models` and `cleanse_models` are how many test models
    the two inversion detectors measure, clean and backdoored together. `fitting` are settings of
    fits other than the default.
    """

    command: str
    names: tuple[str, ...]
    recipes: Mapping[str, Recipe]
    zoos: Mapping[str, Zoo]
    images: Mapping[str, ImageSource]
    scales: Mapping[str, float]
    missing: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    num_patterns: tuple[int, ...] = (1, 5, 10)
    seeds: tuple[int, ...] = (0, 1, 2)
    attack_models: Mapping[str, int] = field(default_factory=dict)
    cleanse_models: Mapping[str, int] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The one recipe of an experiment that takes one."""
        return self.names[0]

    @property
    def middle_patterns(self) -> int:
        """M of the experiments at one M, 5 as in Figure 4, if that is among those asked for."""
        return 5 if 5 in self.num_patterns else max(self.num_patterns)

    def fits(
        self,
        name: str,
        detector: str,
        num_patterns: int,
        training: Sequence[ZooEntry],
        test: Sequence[ZooEntry],
        *,
        triggers: Sequence[Mapping[str, Any]] = (),
        **settings: Any,
    ) -> list[FitTask]:
        """Return a fit for every seed."""
        from litmus.fitting import PatternSettings

        kind = DETECTORS[detector]
        assert issubclass(kind, PatternDetector)
        given = {**self.fitting, **settings, "num_patterns": num_patterns}
        full = asdict(PatternSettings(learn_patterns=kind.learns_patterns, **given))
        return [
            FitTask(
                zoo=name,
                detector=detector,
                settings=full,
                seed=seed,
                training=tuple(training),
                test=tuple(test),
                triggers=tuple(triggers),
            )
            for seed in self.seeds
        ]

    def measurement(self, name: str, detector: str, entry: ZooEntry, **options: Any) -> MeasureTask:
        """Return the measurement of a model; the patch's size and place are the recipe's."""
        kind = DETECTORS[detector]
        assert issubclass(kind, InversionDetector)
        recipe = self.recipes[name]
        if detector == "attack_based":
            place = recipe.attacks[0].at().options.get("place", "corner")
            options = {"size": recipe.triggers.size, "place": place, **options}
        return MeasureTask(
            zoo=name,
            detector=detector,
            settings=kind.resolve(options),
            entry=entry,
            images=self.images[name],
        )

    def provenance(self, *, seeds: Sequence[int] | None = None) -> dict[str, Any]:
        """Return what every file of results says of how it came about; `seeds`: those used."""
        from importlib.metadata import version

        return {
            "command": self.command,
            "recipes": {name: self.recipes[name].to_json() for name in self.zoos},
            "scale": {name: self.scales[name] for name in self.zoos},
            "seeds": list(self.seeds if seeds is None else seeds),
            "machine": machine_facts(),
            "litmus_version": litmus.__version__,
            "torch_version": version("torch"),
            "left_out": dict(self.left_out),
        }


def open_study(
    names: Sequence[str],
    *,
    recipes: Path,
    zoos: Path,
    scales: Mapping[str, float],
    companions: Sequence[str] = (),
    skip: bool = False,
    fitted: bool = True,
    built: bool = True,
    data: Path | None = None,
    **fields: Any,
) -> Study:
    """Read recipes and what there is of their zoos, without building anything.

    `companions` are zoos that stand beside those of `names` and have no clean models. With
    `skip`, a recipe without images or with too few models is left out, with the reason;
    otherwise that raises DataError or ZooError. `fitted`: detectors are to be fitted. `built`:
    models are needed.
    """
    study = Study(
        names=tuple(names),
        recipes={},
        zoos={},
        images={},
        scales=dict(scales),
        **fields,
    )
    for name in (*names, *companions):
        recipe = load_recipe(recipes / f"{name}.toml")
        try:
            study = _with(study, name, recipe, zoos / name, data)
            if fitted and name in names:
                check_size(study.zoos[name])
        except (DataError, ZooError) as fault:
            if not skip:
                raise
            study = _without(study, name, str(fault))
    if not study.zoos:
        raise ZooError("nothing to work on", got="; ".join(study.left_out.values()))
    return study if built else replace(study, missing={})


def _with(study: Study, name: str, recipe: Recipe, folder: Path, data: Path | None) -> Study:
    from litmus.datasets import load_images

    options = recipe.dataset.options()
    dataset = load_images(recipe.dataset.name, data=data, **options)
    source = ImageSource(
        name=recipe.dataset.name,
        options=tuple(sorted(options.items())),
        data=data,
        sha256=dataset.sha256,
    )
    specs = expand(recipe, dataset.input_spec, scale=study.scales[name])
    entries, missing = _entries(specs, folder, recipe.attempts)
    zoo = Zoo(path=folder, recipe=recipe.to_json(), entries=entries)
    return replace(
        study,
        recipes={**study.recipes, name: recipe},
        zoos={**study.zoos, name: zoo},
        images={**study.images, name: source},
        missing={**study.missing, name: missing},
    )


def _without(study: Study, name: str, reason: str) -> Study:
    return replace(
        study,
        names=tuple(other for other in study.names if other != name),
        zoos={k: v for k, v in study.zoos.items() if k != name},
        missing={k: v for k, v in study.missing.items() if k != name},
        left_out={**study.left_out, name: reason},
    )


def _entries(
    specs: Sequence[ModelSpec], folder: Path, attempts: int
) -> tuple[tuple[ZooEntry, ...], int]:
    """Return the accepted models, those to come at their next attempt, and how many these are."""
    accepted, rejected = finished_ids(folder) if folder.is_dir() else (set(), set())
    entries, missing = [], 0
    for first in specs:
        spec: ModelSpec | None = first
        while spec is not None and (model_id := spec.id) not in accepted:
            if model_id not in rejected:
                break
            spec = spec.substitute(attempts)
        if spec is None:
            continue  # given up
        path = folder / f"{spec.id}.safetensors"
        if spec.id in accepted:
            entries.append(read_entry(path))
        else:
            entries.append(_to_come(spec, path))
            missing += 1
    return tuple(entries), missing


def _to_come(spec: ModelSpec, path: Path) -> ZooEntry:
    return ZooEntry(
        path=path,
        id=spec.id,
        spec=spec,
        trigger_id=spec.build_attack().trigger_id,
        steps=0,
        clean_accuracy=1.0,
        attack_success=1.0,
    )


def check_size(zoo: Zoo) -> None:
    """Raise ZooError where a zoo is too small to fit detectors on and to evaluate them."""
    zoo.split("test")
    twins = {entry.spec.twin for entry in zoo.split("train")}
    if len(twins) < MIN_TWINS:
        raise ZooError(
            "too few models to fit a detector",
            expected=f"at least {MIN_TWINS} twins in the training split",
            got=len(twins),
            where=zoo.path.name,
        )


def parse_scales(text: str, names: Sequence[str]) -> dict[str, float]:
    """Return the scale of each recipe from `0.33` or `mnist=0.33,gtsrb=0.1` (others: 1).

    Raises UsageError for what is no number above 0 and at most 1. Other recipes' names may be
    among them, so that one text serves all experiments.
    """
    if "=" not in text:
        text = ",".join(f"{name}={text}" for name in names)
    scales = dict.fromkeys(names, 1.0) | named_numbers(text, float, "--scale")
    for name, scale in scales.items():
        if not 0 < scale <= 1:
            raise UsageError(
                f"the scale of {name} is impossible",
                expected="above 0, at most 1",
                got=scale,
                where="--scale",
            )
    return scales


def named_numbers(text: str, convert: Callable[[str], N], where: str) -> dict[str, N]:
    """Return numbers by name from `mnist=120,gtsrb=20`; raises UsageError naming `where`."""
    numbers = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            numbers[name.strip()] = convert(number)
        except ValueError as fault:
            raise UsageError(
                "not a number by name", expected="mnist=NUMBER,...", got=part, where=where
            ) from fault
    return numbers
