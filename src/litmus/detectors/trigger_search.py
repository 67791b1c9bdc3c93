"""Trigger search as a detector: how easily one class is led to another, and by what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from litmus.detectors.base import Measurement
from litmus.detectors.effort import Effort
from litmus.detectors.evidence import Evidence
from litmus.detectors.statistic import StatisticDetector
from litmus.errors import DetectorError
from litmus.inversion.forms import Form, forms_for
from litmus.inversion.search import (
    Bank,
    Found,
    SearchSettings,
    drawn_pairs,
    make_bank,
    pair_count,
    search_form,
)
from litmus.models import Gradients, Images, InputSpec, Model

if TYPE_CHECKING:
    from litmus.zoo import Zoo

__all__ = ["TriggerSearchDetector"]

_SOFT: Final = 0.05
"""Added to a cross-entropy before its logarithm: below it, all images are turned."""
_STATISTICS: Final = ("ease", "ease beyond clean", "success", "lead over other targets")
_CONTRASTS: Final = ("pair at one place", "target at one place", "any target at one place")
_PATCHES: Final = ("large patch", "small patch")
_DOTS: Final = ("dot", "pixel or coloured dot")
_KINDS: Final = (*_PATCHES, "moving patch", "blend", "additive", *_DOTS)
_PREFIX: Final = "search."
_TYPICAL: Final = 0.95
_EXAMPLES: Final = 4
_WORKS: Final = 0.5
_FEWEST: Final = 4
"""Pictures of a class, half to optimise on; with fewer, the detector's own are taken."""


@dataclass(frozen=True, kw_only=True)
class TriggerSearchDetector(StatisticDetector):
    """The trigger itself, searched on learned images or on given pictures; see `docs`.

    For each form of a trigger the statistics are how easily the best pair of classes is led from
    one to the other, how much more easily than the zoo's clean models show for that very pair, the
    share of other images that follow, and the lead over the next target class. Of patches and
    dots, which are tried at several places, also how much easier one place is than the others, see
    `place_contrasts`: this is taken within a model, so that it does not matter how easily all of
    it is led astray. None of them depends on the order of the classes.

    `images` (k, r, c, h, w) are learned so that all clean models agree on them even where a part
    is covered, the first half for optimising and the rest for judging. `tables` (d,) are the clean
    models' mean log losses, by form and pair at the end and by pair and place of patches at the
    beginning;
    `clean_success` (forms, n) the shares that their best candidates turn. `pictures` (n, c, h, w)
    take the place of the images for classes that the model gives enough of them.
    """

    name: ClassVar[str] = "trigger_search"
    needs_gradients: ClassVar[bool] = True
    effort: ClassVar[Effort] = "standard"
    takes_pictures: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    statistic_names: ClassVar[tuple[str, ...]] = tuple(
        f"{kind}: {name}" for kind in _KINDS for name in _STATISTICS
    ) + tuple(f"{kind}: {name}" for kind in _PATCHES + _DOTS for name in _CONTRASTS)

    images: Images | None = field(default=None, repr=False)
    tables: NDArray[np.float64] | None = field(default=None, repr=False)
    clean_success: NDArray[np.float64] | None = field(default=None, repr=False)
    pictures: Images | None = field(default=None, repr=False)

    @classmethod
    def settings_type(cls) -> type[Any]:
        """Return `SearchSettings`."""
        return SearchSettings

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that are tried on images of the detector's size."""
        return forms_for(*self.input_spec.image_shape)

    def learned(self, zoo: Zoo, *, seed: int) -> Self:
        """Return the detector with images that the zoo's clean models agree on."""
        from litmus.fitting.search_images import learn_search_images

        return replace(self, images=learn_search_images(zoo, seed=seed))

    def with_pictures(self, images: Images) -> Self:
        """Return the detector with pictures (n, c, h, w) of the model's domain to search on."""
        return replace(self, pictures=images)

    def statistics(self, model: Model) -> NDArray[np.float64]:
        """Return the numbers of `statistic_names`."""
        return self._read_found(self._numbers(self._search(model)), self._known_tables())

    def measure(self, model: Model) -> Measurement:
        """Search, let each member judge, and say what was found."""
        self.check_shape(model)
        gradients = self.gradients_of(model)
        bank = self._bank(gradients)
        found = self._search_all(gradients, bank)
        row = self._checked(self._read_found(self._numbers(found), self._known_tables()))
        pairs = [head.measure(row) for head in self.heads]
        return Measurement(
            member_scores=[score for score, _ in pairs],
            scope_distance=max(distance for _, distance in pairs),
            evidence=self._evidence(gradients, bank, found),
        )

    def _key(self) -> dict[str, Any]:
        assert self.images is not None
        pixels = np.rint(self.images * 255).astype(np.uint8).tobytes()
        return {**super()._key(), "images": hashlib.sha256(pixels).hexdigest()}

    def _raw(self, model: Model) -> NDArray[np.float64]:
        """What is kept of a zoo model: losses by pair and by place, shares by target."""
        return self._numbers(self._search(model))

    def _statistics_of(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._read_found(raw, self._known_tables())

    def settled(
        self, rows: NDArray[np.float64], backdoored: NDArray[np.bool_]
    ) -> tuple[Self, NDArray[np.float64]]:
        """Return the detector with the clean models' tables, and the statistics of all models.

        A clean model's own statistics are taken against the tables of the others: a new model
        does not stand in them either.
        """
        logs = self._logs(rows)
        clean = np.flatnonzero(~backdoored)
        total = logs[clean].sum(axis=0)
        whole = total / len(clean)
        own = {int(i): (total - logs[i]) / max(len(clean) - 1, 1) for i in clean}
        statistics = [
            self._read_found(row, whole if backdoored[i] else own[i]) for i, row in enumerate(rows)
        ]
        success = np.sort(self._shares(rows).max(axis=2)[clean].T, axis=1)
        return replace(self, tables=whole, clean_success=success), np.array(statistics)

    def _search(self, model: Model) -> list[Found]:
        gradients = self.gradients_of(model)
        self.check_shape(model)
        return self._search_all(gradients, self._bank(gradients))

    def _search_all(self, gradients: Gradients, bank: Bank) -> list[Found]:
        settings = SearchSettings(**self.settings)
        return [search_form(gradients, bank, form, settings) for form in self.forms]

    def _bank(self, gradients: Gradients) -> Bank:
        assert self.images is not None
        half = self.images.shape[1] // 2
        fit, check = [list(part) for part in (self.images[:, :half], self.images[:, half:])]
        if self.pictures is not None:
            answers = np.concatenate(
                [
                    gradients.logits(self.pictures[i : i + 256]).argmax(axis=1)
                    for i in range(0, len(self.pictures), 256)
                ]
            )
            for label in range(self.input_spec.num_classes):
                own = self.pictures[answers == label]
                if len(own) >= _FEWEST:
                    fit[label], check[label] = own[::2], own[1::2]
        return make_bank(gradients, fit, check, SearchSettings(**self.settings))

    def _numbers(self, found: Sequence[Found]) -> NDArray[np.float64]:
        """Return losses (k, k) of each form, screens of patches, successes (k,), dots' contrasts.

        All flat. Of a pair that was dropped the loss is the largest of those that stayed.
        """
        k, losses, shares = self.input_spec.num_classes, [], []
        for each in found:
            own, turned = np.full((k, k), each.loss.max()), np.zeros(k)
            for (source, target), loss, share in zip(
                each.pairs, each.loss, each.success, strict=True
            ):
                own[source, target] = min(own[source, target], loss)
                turned[target] = max(turned[target], share)
            losses.append(own.ravel())
            shares.append(turned)
        screens = [each.screen.ravel() for each in found if _has_table(each.form)]
        contrasts = [
            place_contrasts(each.screened, np.log(each.screen + _SOFT))
            for each in found
            if each.form.kind == "dot"
        ]
        return np.concatenate([*losses, *screens, *shares, *contrasts])

    @property
    def _pairs(self) -> NDArray[np.int64]:
        """The pairs of classes that are tried."""
        return drawn_pairs(self.input_spec.num_classes, SearchSettings(**self.settings))

    @property
    def _num_logs(self) -> int:
        """How many of a row's numbers are losses, which are looked at as logarithms."""
        places = sum(len(form.places) for form in self.forms if _has_table(form))
        k = self.input_spec.num_classes
        tried = pair_count(k, SearchSettings(**self.settings))
        return len(self.forms) * k * k + tried * places

    def _logs(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of losses and screens (n, d) of rows."""
        return np.log(rows[:, : self._num_logs] + _SOFT)

    def _shares(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the successes (n, forms, k) of rows."""
        end = self._num_logs + len(self.forms) * self.input_spec.num_classes
        return rows[:, self._num_logs : end].reshape(len(rows), len(self.forms), -1)

    def _by_pair(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the final ones (forms, k, k) of a model's logs."""
        k = self.input_spec.num_classes
        return logs[: len(self.forms) * k * k].reshape(-1, k, k)

    def _by_place(self, logs: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return those of the screens (pairs, places), one a form of `_has_table`."""
        screens, start = [], len(self.forms) * self.input_spec.num_classes**2
        for form in self.forms:
            if _has_table(form):
                end = start + len(self._pairs) * len(form.places)
                screens.append(logs[start:end].reshape(-1, len(form.places)))
                start = end
        return screens

    def _known_tables(self) -> NDArray[np.float64]:
        assert self.tables is not None
        return self.tables

    def _read_found(
        self, row: NDArray[np.float64], tables: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the statistics of a flat row."""
        logs, shares = self._logs(row[None])[0], self._shares(row[None])[0]
        off = ~np.eye(self.input_spec.num_classes, dtype=bool)
        statistics: list[float] = []
        for own, table, share in zip(
            self._by_pair(logs), self._by_pair(tables), shares, strict=True
        ):
            by_target = np.where(off, own, np.inf).min(axis=0)
            first, second = np.sort(by_target)[:2]
            statistics += [-first, (table - own)[off].max(), share.max(), second - first]
        for screen in self._by_place(logs - tables):
            statistics += place_contrasts(self._pairs, screen)
        dots = sum(form.kind == "dot" for form in self.forms) * len(_CONTRASTS)
        return np.array([*statistics, *row[len(row) - dots :]])

    def _evidence(
        self, gradients: Gradients, bank: Bank, found: Sequence[Found]
    ) -> Evidence | None:
        """Return the trigger that clean models show least, and its effect; see `Evidence`."""
        by_pair, clean = self._by_pair(self._known_tables()), self.clean_success
        assert clean is not None
        ease = [
            float((by_pair[i][tuple(f.pairs.T)] - np.log(f.loss + _SOFT)).max())
            + float((clean[i] < f.success[0]).mean())
            for i, f in enumerate(found)
        ]
        best = int(np.argmax(ease))
        typical = float(np.quantile(clean[best], _TYPICAL, method="higher"))
        whose = "the detector's reference images" if self.pictures is None else "given pictures"
        smallest = min((f.form.size for f in found if _same(f, found[best])), default=0)
        return _shown(gradients, bank, found[best], typical, smallest, whose)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the heads' arrays, the images as pictures of 8 bits, and the clean models'."""
        assert self.images is not None
        assert self.clean_success is not None
        return {
            **super().arrays(),
            f"{_PREFIX}images": np.rint(self.images * 255).astype(np.uint8),
            f"{_PREFIX}tables": self._known_tables(),
            f"{_PREFIX}clean_success": self.clean_success,
        }

    @classmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Read a detector; raises DetectorError where arrays are missing or do not fit."""
        read = super().from_file(arrays, header)
        own = {n: arrays.get(f"{_PREFIX}{n}") for n in ("images", "tables", "clean_success")}
        spec, count = read.input_spec, len(read.forms)
        _check_arrays(own, spec, count, read._num_logs)
        assert own["images"] is not None
        return replace(
            read,
            images=own["images"].astype(np.float32) / np.float32(255),
            tables=own["tables"],
            clean_success=own["clean_success"],
        )

    def notes_of(self, measurement: Measurement) -> tuple[str, ...]:
        """Say on whose images the search was, and how many pairs of classes it tried."""
        k = self.input_spec.num_classes
        tried, pairs = len(self._pairs), k * (k - 1)
        some = "" if tried == pairs else f"; {tried} of {pairs} pairs of classes were tried"
        whose = measurement.evidence.images_from if measurement.evidence else "reference images"
        return (f"trigger search on {whose}{some}",)


def _has_table(form: Form) -> bool:
    """Whether it is tried at places whose losses are held against clean models'.

    Dots' are not: their table would be larger than the rest of the file, and adds little.
    """
    return form.kind == "patch"


def place_contrasts(pairs: NDArray[np.int64], logs: NDArray[np.float64]) -> list[float]:
    """Return by how much one place is easier than the others, in three ways.

    `logs` (p, places) are log losses of `pairs` (p, 2) of source and target, less what clean models
    show. Of each the pair's median over places is taken away, then the place's median over pairs:
    what is left is neither the pair's ease nor the place's. The smallest of all; the smallest mean
    over the easier half of a target's sources, at one place; and that over all sources, each to
    the target that is easiest for it there, which finds a rule such as all-to-all. Each with its
    sign changed.
    """
    left = logs - np.median(logs, axis=1, keepdims=True)
    left -= np.median(left, axis=0, keepdims=True)
    by_target, by_source = [], []
    for label in np.unique(pairs):
        to, start = left[pairs[:, 1] == label], left[pairs[:, 0] == label]
        if len(to):
            by_target.append(np.sort(to, axis=0)[: (len(to) + 1) // 2].mean(axis=0))
        if len(start):
            by_source.append(start.min(axis=0))
    smallest = left.min(), np.min(by_target), np.mean(by_source, axis=0).min()
    return [-float(value) for value in smallest]


def _check_arrays(
    own: Mapping[str, NDArray[Any] | None], spec: InputSpec, forms: int, logs: int
) -> None:
    shapes = {name: None if array is None else array.shape for name, array in own.items()}
    images, tables, clean = shapes["images"], shapes["tables"], shapes["clean_success"]
    if (
        images is None
        or len(images) != 5
        or (images[0], *images[2:]) != (spec.num_classes, *spec.image_shape)
        or images[1] < 2
        or tables != (logs,)
        or clean is None
        or len(clean) != 2
        or clean[0] != forms
        or not clean[1]
    ):
        raise DetectorError(
            "images or tables of another shape than the search's",
            expected=f"{(spec.num_classes, 'r', *spec.image_shape)}, {(logs,)}, {(forms, 'n')}",
            got=shapes,
        )


def _same(one: Found, best: Found) -> bool:
    """Whether a patch or dot that works leads to the same target."""
    return bool(
        {one.form.kind, best.form.kind} <= {"patch", "dot"}
        and one.pairs[0, 1] == best.pairs[0, 1]
        and one.success[0] >= _WORKS
    )


def _shown(
    gradients: Gradients, bank: Bank, found: Found, typical: float, smallest: int, whose: str
) -> Evidence:
    source, target = (int(label) for label in found.pairs[0])
    winner = found.placed[:1]
    was = [gradients.logits(images).argmax(axis=1) for images in bank.check]
    kept = [images[labels != target] for images, labels in zip(bank.check, was, strict=True)]
    turned = [
        gradients.logits(winner.stamp(images[None])[0]).argmax(axis=1) == target
        if len(images)
        else np.zeros(0, dtype=bool)
        for images in kept
    ]
    images = kept[source]
    after = winner.stamp(images[None])[0]
    order = np.argsort(~turned[source], kind="stable")[:_EXAMPLES]
    before = was[source][was[source] != target][order]
    then = gradients.logits(after[order]).argmax(axis=1) if len(order) else before
    mask, pattern = winner.picture()
    return Evidence(
        form=found.form.kind,
        size=found.form.size,
        place=winner.words(),
        source_class=source,
        target_class=target,
        images=len(images),
        turned=int(turned[source].sum()),
        loss=float(found.loss[0]),
        typical=typical,
        sources=tuple(
            label
            for label, each in enumerate(turned)
            if label != target and len(each) and each.mean() >= _WORKS
        ),
        smallest=smallest,
        images_from=whose,
        mask=_bytes(mask),
        pattern=_bytes(pattern),
        before=_bytes(images[order]),
        after=_bytes(after[order]),
        answers=tuple((int(a), int(b)) for a, b in zip(before, then, strict=True)),
    )


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
