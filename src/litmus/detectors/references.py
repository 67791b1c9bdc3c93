"""Reference images: how an unknown model wants its input, in which order its classes stand.

They were learned so that all clean models of a zoo agree on them, one image a class. A model for
the same classes agrees, too, where it is fed as it wants; one for other classes does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.recognition import (
    Order,
    Reading,
    Recognition,
    Way,
    agreement,
    order_text,
)
from litmus.errors import DetectorError
from litmus.formats.ordered import OrderedModel
from litmus.formats.preprocessing import INPUT_KEYS, Preprocessing
from litmus.formats.usual_inputs import agrees, usual_inputs
from litmus.matching import (
    FEATURE_NAMES,
    assign,
    features_of,
    most_by_chance,
    order_by_name,
    robust_answers,
    two_looks,
)
from litmus.models import Images, InputSpec, LogProbs, Model

if TYPE_CHECKING:
    from litmus.datasets import ImageDataset
    from litmus.zoo import Zoo

__all__ = ["Choice", "References"]

_ODDS: Final = 3.0
"""So many times as probable as the default must another input be to be preferred to it."""
_CLASSES: Final = 1.5
"""So many classes more must a searched order have right than the detector's own."""
_SHARE: Final = 0.05
"""And at least this share of all."""
_INPUT_DEFAULTS: Final = {key: getattr(Preprocessing(), key) for key in INPUT_KEYS}
_ORIGIN: Final = "reference images"
_PREFIX: Final = "references."
_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A multinomial logistic regression: which of c inputs a model wants, by how it answers.

    For the features (f,) of its answers under all candidates: ``weight (c, 2 f) @ (x - mean (2 f,))
    / std (2 f,) + bias (c,)``, where x are the features and their squares.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def log_odds(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how probable each candidate is (c,), up to one shift of them all."""
        both = np.concatenate([features, features**2])
        odds: NDArray[np.float64] = self.weight @ ((both - self.mean) / self.std) + self.bias
        return odds


@dataclass(frozen=True, kw_only=True)
class References:
    """Learned images (k, c, h, w), one a class, and how models of the zoo answer to them.

    `background`, `mean` and `std` (c,) are those of the data set's images, `class_names` its
    classes. Inputs are searched for with the references of the classes `searched` (s,), s <= k. A
    model fits where the references' mean probability of their class is at least `floor`, or
    `searched_floor` where its classes had to be put into another order; then more of them must be
    on their class than the best order of random answers would have. `facts` tell how all this was
    learned and how well it does.
    """

    images: Images
    background: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    class_names: tuple[str, ...]
    searched: NDArray[np.int64]
    choice: Choice
    floor: float
    searched_floor: float
    facts: Mapping[str, Any]

    @property
    def candidates(self) -> Mapping[str, Preprocessing]:
        """The inputs that are searched for, by name; the default is the first."""
        return usual_inputs(self.mean, self.std)

    @classmethod
    def fit(
        cls,
        zoo: Zoo,
        dataset: ImageDataset,
        *,
        seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        **settings: Any,
    ) -> Self:
        """Learn references on a zoo's training split; the test split is not touched.

        `settings` are those of `litmus.fitting.ReferenceSettings`. Of the zoo's `dataset` only
        mean, deviation, background and class names are taken. Raises ZooError where there are
        too few models.
        """
        from litmus.fitting import ReferenceSettings, fit_references

        chosen = ReferenceSettings(**settings)
        fitted = fit_references(zoo, dataset, chosen, seed=seed, on_progress=on_progress)
        arrays = {name: getattr(fitted, name) for name in fitted.__dataclass_fields__}
        return cls(choice=Choice(**arrays.pop("choice")), **arrays)

    def recognise(self, model: Model) -> Recognition:
        """Find out what is not known of a model, and whether it is one for these classes.

        What its `preprocessing` states is kept; a model without one is fed as it is. Class names
        that are the references' settle the order. Raises ModelError where the model fails.
        """
        tried = []
        for way in self._ways(model):
            tried.append(self._read(way.model))
            if tried[-1].agreement >= self.floor:
                return self._fit(way, tried[-1])
        return self._unfit(model, tried[0])

    def _ways(self, model: Model) -> Iterator[Way]:
        """Yield the model as it is fed, or in the ways that may be, the likeliest first."""
        stated: Preprocessing | None = getattr(model, "preprocessing", None)
        feeds = {} if stated is None else self._feeds(stated)
        if stated is None or all(fed == stated for fed in feeds.values()):
            yield Way(model)
            return
        feed: Callable[[Preprocessing], Model] = model.with_preprocessing  # type: ignore[attr-defined]
        looks = two_looks(self.images[self.searched], self.background)
        batches = [candidate.apply(looks) for candidate in self.candidates.values()]
        features = features_of(feed(replace(stated, **_INPUT_DEFAULTS)), batches)
        names, positions = list(feeds), [list(self.candidates).index(name) for name in feeds]
        odds = self.choice.log_odds(features)[positions]
        shares = np.exp(odds - odds.max()) / np.exp(odds - odds.max()).sum()
        order = np.argsort(-shares, kind="stable").tolist()
        if shares[order[0]] < _ODDS * shares[0]:
            order = [0, *(i for i in order if i)]  # 0 to 1, if that may be
        for i in order:
            yield Way(feed(feeds[names[i]]), wants=names[i], probability=float(shares[i]))

    def _feeds(self, stated: Preprocessing) -> dict[str, Preprocessing]:
        """Return the usual inputs that have what is stated, by name, with all else as stated."""
        found = [key for key in INPUT_KEYS if key not in stated.origin]
        if len(self.mean) != 3:
            found = [key for key in found if key != "channels"]
        origin = {**stated.origin, **dict.fromkeys(found, _ORIGIN)}
        return {
            name: replace(stated, **{key: getattr(usual, key) for key in found}, origin=origin)
            for name, usual in self.candidates.items()
            if agrees(usual, stated)
        }

    def _read(self, model: Model) -> Reading:
        answers = robust_answers(model, self.images)
        order, how = self._order(answers, getattr(model, "classes", ()))
        return Reading(answers, order, how)

    def _fit(self, way: Way, reading: Reading) -> Recognition:
        found = []
        if way.wants is not None:
            found.append(
                f"the model wants its input {way.wants} (probability {way.probability:.2f})"
            )
        if reading.how != "known":
            found.append(order_text(reading.order, reading.how))
        return Recognition(
            model=way.model if reading.how == "known" else OrderedModel(way.model, reading.order),
            wants=way.wants,
            order=tuple(reading.order.tolist()),
            agreement=reading.agreement,
            # Where all was known, there is nothing to tell.
            notes=("; ".join([reading.says, *found]),) if found else (),
        )

    def _order(self, answers: LogProbs, names: Sequence[str]) -> tuple[NDArray[np.int64], Order]:
        """Return the output for each class, and whence it is known."""
        own = np.arange(len(answers))
        named = order_by_name(names, self.class_names)
        if named is not None:
            return named, "known" if np.array_equal(named, own) else "named"
        found = assign(answers)
        clearly = max(_CLASSES / len(own), _SHARE)
        needed = max(self.searched_floor, agreement(answers, own) + clearly)
        on_class = int((answers.argmax(axis=1) == found).sum())
        told = on_class > most_by_chance(len(own)) and agreement(answers, found) >= needed
        return (found, "searched") if told else (own, "known")

    def _unfit(self, model: Model, reading: Reading) -> Recognition:
        """Leave the model as it came, but for an order that its class names state."""
        classes = ", ".join(self.class_names[:_NAMED])
        more = ", ..." if len(self.class_names) > _NAMED else ""
        votes = np.bincount(reading.answers.argmax(axis=1), minlength=len(reading.order))
        captured = (
            f", {votes.max()} on output {votes.argmax()}" if 2 * votes.max() > votes.sum() else ""
        )
        return Recognition(
            model=model if reading.how == "known" else OrderedModel(model, reading.order),
            order=tuple(reading.order.tolist()),
            agreement=reading.agreement,
            out_of_scope=(
                f"the model is not for the detector's classes ({classes}{more}), or fed otherwise "
                f"than it wants: {reading.says}{captured}"
            ),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for a detector file; the images are pictures of 8 bits."""
        own = {name: getattr(self, name) for name in _ARRAYS}
        own["images"] = np.rint(self.images * 255).astype(np.uint8)
        own |= {f"choice.{name}": getattr(self.choice, name) for name in _CHOICE}
        return {f"{_PREFIX}{name}": array for name, array in own.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the scalars and texts for a detector file's header."""
        names = ("class_names", "floor", "searched_floor", "facts")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_file(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        header: Mapping[str, Any],
        input_spec: InputSpec,
    ) -> Self:
        """Read what `arrays` and `to_json` wrote; raises DetectorError where they do not fit."""
        own = {name: arrays[f"{_PREFIX}{name}"] for name in ("images", *_ARRAYS)}
        choice = Choice(**{name: arrays[f"{_PREFIX}choice.{name}"] for name in _CHOICE})
        own["images"] = own["images"].astype(np.float32) / np.float32(255)
        references = cls(
            **own,
            choice=choice,
            class_names=tuple(map(str, header["class_names"])),
            floor=float(header["floor"]),
            searched_floor=float(header["searched_floor"]),
            facts=dict(header["facts"]),
        )
        references._check(input_spec)
        return references

    def _check(self, spec: InputSpec) -> None:
        count, f = len(self.candidates), len(FEATURE_NAMES) * len(self.candidates)
        k, arrays = spec.num_classes, self.arrays()
        wanted = {
            "images": (k, *spec.image_shape),
            **dict.fromkeys(("background", "mean", "std"), (spec.channels,)),
            **dict.fromkeys(("choice.mean", "choice.std"), (2 * f,)),
            "choice.weight": (count, 2 * f),
            "choice.bias": (count,),
        }
        for name, shape in wanted.items():
            if (found := arrays[f"{_PREFIX}{name}"].shape) != shape:
                raise DetectorError(
                    f"reference images of another shape than the header says: {name}",
                    expected=shape,
                    got=found,
                )
        if len(self.class_names) != k:
            raise DetectorError(
                "reference images need a name a class", expected=k, got=len(self.class_names)
            )
        searched = self.searched
        if searched.dtype != np.int64 or searched.ndim != 1 or not 0 < len(searched) <= k:
            raise DetectorError("searched classes of the wrong kind", got=searched.shape)
        if not (0 <= searched.min() <= searched.max() < k):
            raise DetectorError(
                "reference images of no class", expected=f"0 to {k - 1}", got=searched.tolist()
            )


_CHOICE: Final = tuple(Choice.__dataclass_fields__)
_ARRAYS: Final = ("background", "mean", "std", "searched")
