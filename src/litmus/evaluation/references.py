"""How well reference images tell a model's input and class order, on models they never saw.

A zoo's models want images in [0, 1] and have their classes in the zoo's order. Each is disguised
as one that wants another input and has another order, which is exact: undone before its first
layer is what it pretends to want.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.references import References
from litmus.errors import ModelError, UsageError
from litmus.fitting import FOLDS, reference_folds
from litmus.formats import onnx_file, zoo_file
from litmus.formats.preprocessing import Preprocessing
from litmus.models import Images, InputSpec, Model, Outputs
from litmus.seeds import derive_seed
from litmus.zoo import Zoo, ZooEntry

__all__ = ["Disguise", "RecognisedModel", "ReferenceEvaluation", "evaluate_references"]

_WANTS: Final = 4
"""Inputs that each model is disguised to want, where there are more candidates."""
_ALIKE: Final = 0.1
"""Of a pixel's range."""


class Disguise:
    """A model of [0, 1] as one whose input has to be `wants`, with its classes in `order`."""

    def __init__(
        self,
        model: Model,
        wants: Preprocessing,
        order: NDArray[np.int64],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._model, self._wants, self._order = model, wants, order
        self.preprocessing = preprocessing or Preprocessing()

    @property
    def input_spec(self) -> InputSpec:
        """That of the model."""
        return self._model.input_spec

    @property
    def outputs(self) -> Outputs:
        """That of the model."""
        return self._model.outputs

    def __call__(self, images: Images) -> NDArray[Any]:
        """Return the outputs (n, k) in the order."""
        seen = self._wants.undo(self.preprocessing.apply(images))
        return self._model(seen)[:, self._order]

    def with_preprocessing(self, preprocessing: Preprocessing) -> Disguise:
        """Return the same model fed otherwise."""
        return Disguise(self._model, self._wants, self._order, preprocessing)


@dataclass(frozen=True, kw_only=True)
class RecognisedModel:
    """A disguised model, and what was found of it.

    `found` is the name of the input that was found, None where nothing fits. `reordered` says
    whether its classes stood in another order than the zoo's, `order_found` whether the one that it
    has is known now.
    """

    entry: ZooEntry
    group: str
    wants: str
    found: str | None
    reordered: bool
    order_found: bool


@dataclass(frozen=True, kw_only=True)
class ReferenceEvaluation:
    """What references tell of models of groups that they were learned without.

    `alike` has the candidates' names, each with those that are all but the same. `floors` are the
    references' floors, one a group. `others` has, for every file of a model for other classes, the
    share of the groups' references that refused it.
    """

    dataset: str
    models: tuple[RecognisedModel, ...]
    alike: Mapping[str, frozenset[str]]
    floors: Mapping[str, float]
    others: Mapping[str, float]

    def share(self, what: str, **chosen: object) -> float | None:
        """Return how many of the models have something in common, None where there is no model.

        `what` is `found` (the very input, or one all but the same), `exactly`, `refused`, or
        `order_found` (of those that were not refused); `chosen` are values of their fields, or of
        `backdoored` and `architecture`.
        """
        models = [m for m in self.models if all(_has(m, *pair) for pair in chosen.items())]
        if what == "order_found":
            models = [m for m in models if m.found is not None]
        return float(np.mean([self._is(what, m) for m in models])) if models else None

    def _is(self, what: str, model: RecognisedModel) -> bool:
        return {
            "found": model.found in self.alike[model.wants],
            "exactly": model.found == model.wants,
            "refused": model.found is None,
            "order_found": model.order_found,
        }[what]


def evaluate_references(
    zoo: Zoo,
    *,
    others: Sequence[Path] = (),
    seed: int = 0,
    on_group: Callable[[str, int, int], None] = lambda group, done, total: None,
    **settings: Any,
) -> ReferenceEvaluation:
    """Learn references without each of five groups in turn, and recognise that group's models.

    Groups are folds of families of architectures, where a zoo has five, otherwise of twins. Every
    model is disguised as one of several inputs, half of the time with its classes in an order of
    its own. `others` are ONNX files of models for other classes; `settings` those of the fit. The
    test split is not touched. Raises DataError, ZooError, ModelError as the fit and the files may,
    UsageError where two of the files have the same name.
    """
    dataset, groups = zoo.load_dataset(), _groups(zoo, seed)
    foreign = _load_others(others, zoo.input_spec)
    models: list[RecognisedModel] = []
    floors: dict[str, float] = {}
    inputs: Mapping[str, Preprocessing] = {}
    refusals: dict[str, list[bool]] = {name: [] for name in foreign}
    for done, (name, entries) in enumerate(groups.items()):
        on_group(name, done, len(groups))
        references = References.fit(zoo.without(entries), dataset, seed=seed, **settings)
        floors[name], inputs = references.floor, references.candidates
        models += [m for entry in entries for m in _recognised(references, entry, name, seed)]
        for other, model in foreign.items():
            refusals[other].append(bool(references.recognise(model).out_of_scope))
    return ReferenceEvaluation(
        dataset=dataset.name,
        models=tuple(models),
        alike={
            name: frozenset(n for n, candidate in inputs.items() if _alike(own, candidate))
            for name, own in inputs.items()
        },
        floors=floors,
        others={name: float(np.mean(refused)) for name, refused in refusals.items()},
    )


def _load_others(files: Sequence[Path], spec: InputSpec) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for path in files:
        if path.name in found:
            raise UsageError("two models have the same name", got=path.name, where="--others")
        model = onnx_file.load(path, Preprocessing.for_model(path, {}), expected=spec)
        if model.input_spec != spec:
            raise ModelError(
                "the model is of another shape than the zoo's",
                expected=str(spec),
                got=str(model.input_spec),
                where=path,
            )
        found[path.name] = model
    return found


def _has(model: RecognisedModel, name: str, value: object) -> bool:
    owner = model.entry if name in ("backdoored", "architecture") else model
    return bool(getattr(owner, name) == value)


def _groups(zoo: Zoo, seed: int) -> dict[str, tuple[ZooEntry, ...]]:
    entries = zoo.split("train")
    assigned, by = reference_folds(entries, seed)
    groups = {}
    for fold in range(FOLDS):
        members = tuple(e for e, f in zip(entries, assigned, strict=True) if f == fold)
        families = ", ".join(sorted({entry.architecture for entry in members}))
        groups[families if by == "architecture" else f"fold {fold + 1}"] = members
    return groups


def _recognised(
    references: References, entry: ZooEntry, group: str, seed: int
) -> Iterator[RecognisedModel]:
    random = np.random.default_rng(derive_seed(seed, "disguises", entry.id))
    model = zoo_file.load(entry.path)
    candidates = references.candidates
    for i, wants in enumerate(random.permutation(list(candidates))[:_WANTS].tolist()):
        own = np.arange(entry.spec.input_spec.num_classes)
        order = random.permutation(own) if i % 2 else own
        found = references.recognise(Disguise(model, candidates[wants], order))
        yield RecognisedModel(
            entry=entry,
            group=group,
            wants=wants,
            found=None if found.out_of_scope else found.wants,
            reordered=bool(i % 2),
            order_found=found.order == tuple(np.argsort(order).tolist()),
        )


def _alike(wanted: Preprocessing, fed: Preprocessing) -> bool:
    """Whether a model that wants the one sees no pixel far off where it is fed the other."""
    three = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]], dtype=np.float32)
    channels = max(np.size(p.mean) for p in (wanted, fed))
    colours = three[:channels].T[..., None, None]
    seen = wanted.undo(fed.apply(colours))
    return bool(np.abs(seen - colours).max() <= _ALIKE)
