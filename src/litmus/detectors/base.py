"""What every detector is: something that measures a model, and a calibration that judges it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from litmus.artifacts import encode_tensors
from litmus.detectors.calibration import Calibration, calibrate
from litmus.detectors.effort import Effort
from litmus.detectors.evidence import Evidence
from litmus.detectors.recognition import Recognition
from litmus.detectors.references import References
from litmus.errors import DetectorError, ModelError, UnsupportedModelError, UsageError
from litmus.models import Gradients, Images, InputSpec, Model

if TYPE_CHECKING:
    from litmus.datasets import Split
    from litmus.zoo import Zoo, ZooEntry

__all__ = [
    "DETECTOR_FORMAT",
    "Detector",
    "Judgement",
    "Measurement",
    "Verdict",
    "joined",
]

DETECTOR_FORMAT: Final = "litmus-detector"

_MAX_SIZE: Final = 65_536
"""Of images' sides and of classes."""
_MAX_CHANNELS: Final = 64

Verdict = Literal["suspicious", "no evidence found", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a detector saw of one model; plain numbers, so that it crosses a process as JSON.

    `member_scores`: log-odds of a backdoor, one a member. `scope_distance`: root mean square of
    the standardised features, about 1 for a model like those of the zoo. `log_probs`
    (queries, k): the model's answers, for reports. Of a fused detector, `parts` are those that
    were asked, and `left_out` says why others were not.
    """

    member_scores: Sequence[float]
    scope_distance: float
    log_probs: Sequence[Sequence[float]] = field(default=(), repr=False)
    parts: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None

    @property
    def score(self) -> float:
        """The mean of the members' scores; higher is more suspicious."""
        return float(np.mean(self.member_scores))

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and floats."""
        evidence = None if self.evidence is None else self.evidence.to_json()
        # Not `asdict`, which would copy each of some thousand numbers.
        return {**vars(self), "evidence": evidence}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], input_spec: InputSpec) -> Measurement:
        """Read what `to_json` wrote of a model of this shape.

        Raises ValueError, KeyError or TypeError on anything else.
        """
        scores = [float(score) for score in value["member_scores"]]
        distance = float(value["scope_distance"])
        if not scores or not np.isfinite([*scores, distance]).all():
            raise ValueError("scores must be finite numbers")
        rows = [[float(v) for v in row] for row in value["log_probs"]]
        return cls(
            member_scores=scores,
            scope_distance=distance,
            log_probs=rows,
            parts=tuple(map(str, value["parts"])),
            left_out={str(part): str(reason) for part, reason in dict(value["left_out"]).items()},
            evidence=None
            if value["evidence"] is None
            else Evidence.from_json(
                value["evidence"], input_spec.image_shape, input_spec.num_classes
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What the members of a freshly fitted detector said of models that they had not seen.

    `scores`, `distances` (log-odds and scope distances) and `members`, who said so, are (n,).
    """

    entries: Sequence[ZooEntry]
    scores: NDArray[np.float64]
    members: NDArray[np.int64]
    distances: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        entries: Sequence[ZooEntry],
        held_out: Sequence[NDArray[np.int64]],
        measured: Sequence[tuple[float, float]],
    ) -> Unseen:
        """Put together what each member (log-odds, distance) measured of those it had held out.

        `held_out` has the positions in `entries` for each member, `measured` is in their order.
        """
        scores, distances = np.array(measured).T
        return cls(
            entries=[entries[i] for positions in held_out for i in positions],
            scores=scores,
            members=np.repeat(np.arange(len(held_out)), [len(p) for p in held_out]),
            distances=distances,
        )

    def of_models(self, ids: Sequence[str]) -> Unseen:
        """Return what was said of these models, in their order."""
        position = {entry.id: place for place, entry in enumerate(self.entries)}
        chosen = [position[name] for name in ids]
        return Unseen(
            entries=[self.entries[place] for place in chosen],
            scores=self.scores[chosen],
            members=self.members[chosen],
            distances=self.distances[chosen],
        )

    @property
    def backdoored(self) -> NDArray[np.bool_]:
        """Which of the models are."""
        return np.array([entry.backdoored for entry in self.entries])

    def calibration(self) -> Calibration:
        """Return the calibration that follows."""
        return calibrate(self.scores, self.members, self.backdoored, self.distances)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A calibrated answer: score, p-value, probability, verdict, and what to know about it.

    `out_of_scope` are those of the notes that say why it is inconclusive; empty where it is not.
    """

    score: float
    p_value: float
    probability: float
    verdict: Verdict
    notes: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A detector of one input shape.

    A subclass says in class variables what it needs of a model (`needs_weights`: those of its
    last layer, `needs_gradients`: a PyTorch module) and of its user (`needs_images`: clean ones,
    which `takes_images` may be put to use), and how it measures one. `scope`
    tells what it was fitted on (input spec, class names, architectures, attacks, numbers, seeds),
    `held_out` its own AUC on models that its members had not seen. `references` tell how a model
    wants its input, and whether it is one for the detector's classes; a detector may do without.
    `unseen` is what members said of models that they had not seen; a detector that was read from a
    file does not have it.
    """

    name: ClassVar[str]
    needs_zoo: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False
    effort: ClassVar[Effort] = "quick"
    """From which on a fused detector asks it."""
    takes_images: ClassVar[bool] = False
    takes_pictures: ClassVar[bool] = False

    input_spec: InputSpec
    calibration: Calibration
    scope: Mapping[str, Any]
    held_out: Mapping[str, Any]
    references: References | None = field(default=None, repr=False, compare=False)
    unseen: Unseen | None = field(default=None, repr=False, compare=False)

    @classmethod
    @abstractmethod
    def fit(cls, zoo: Zoo, **settings: Any) -> Self:
        """Fit and calibrate on a zoo's training split; the test split is not touched."""

    @classmethod
    @abstractmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings that `fit` takes, each with its default."""

    @abstractmethod
    def measure(self, model: Model) -> Measurement:
        """Measure a model; raises ModelError where its outputs are not numbers."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the detector's own arrays for its file."""

    def relearn(
        self,
        zoo: Zoo,
        shares: Sequence[float],
        *,
        on_progress: Callable[..., None] = lambda *report: None,
    ) -> Iterator[Unseen]:
        """Yield what the members say of the models held out from them, had they seen fewer others.

        One for each of `shares` (above 0, at most 1) of the training models that they saw; the
        settings, folds and seed are those of the detector, which was fitted on this zoo. What is
        held out is the same for all shares. Raises UsageError where nothing is learned.
        """
        raise UsageError("the detector learns nothing from a zoo", got=self.name)

    def calibrated_on(
        self,
        zoo: Zoo,
        *,
        folds: str = "twin",
        seed: int = 0,
        models: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Self:
        """Return the detector as it is, calibrated on models of a zoo that it was not fitted on.

        Member i judges fold i of the training split, so that the detector can be fused with others
        that are fitted on this zoo in the same `folds`, with the same `seed`. `models` clean and as
        many backdoored ones are read, 0 means all. Raises UsageError where the zoo is the one that
        it was fitted on, or has another shape.
        """
        from litmus.fitting import assign_folds, describe_scope, draw_models, held_out_auc

        entries = zoo.split("train")
        self._check_new(zoo)
        assigned, _ = assign_folds(entries, seed, by=folds)
        drawn = draw_models(entries, assigned, models, seed)
        chosen = [entries[place] for place in drawn]
        heard = self.hear(zoo, chosen, on_progress)
        # Where there are fewer members than folds, nobody judges the last ones.
        judged = np.flatnonzero(assigned[drawn] < heard.shape[1] - 1)
        members = assigned[drawn[judged]]
        unseen = Unseen(
            entries=[chosen[i] for i in judged],
            scores=heard[judged, members],
            members=members,
            distances=heard[judged, -1],
        )
        found = describe_scope(zoo, unseen.entries, {}, seed)
        about = {name: found[name] for name in ("zoo", "zoo_seed", "num_models")}
        return replace(
            self,
            calibration=unseen.calibration(),
            scope={**self.scope, "calibrated_on": about},
            held_out=held_out_auc(unseen.scores, unseen.entries, seed),
            unseen=unseen,
        )

    def also_calibrated_on(
        self, zoo: Zoo, *, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Self:
        """Return the detector, its promise extended to models like a zoo's clean ones.

        These are one more population of its calibration, see `Calibration`. Nothing is fitted: kin
        are judged by the same member, members in turn; models that the zoo keeps for a test stay
        out. Its models must not start from models that the detector was fitted on: this is not
        seen. Raises UsageError where the detector knows the zoo, has no calibration, or is of
        another shape, or where the zoo has no clean models.
        """
        some = "train" if any(entry.spec.split == "train" for entry in zoo.entries) else "test"
        clean = [e for e in zoo.entries if not e.backdoored and e.spec.split == some]
        self._check_new(zoo)
        if not clean:
            raise UsageError("a zoo without clean models calibrates nothing", got=zoo.path)
        if not len(self.calibration.scores):
            raise UsageError("a detector without a calibration can't be calibrated further")
        kin = sorted({entry.kin for entry in clean})
        turns = np.array([kin.index(entry.kin) for entry in clean])
        about = {
            "zoo": zoo.recipe["name"],
            "zoo_seed": zoo.recipe["seed"],
            "num_models": len(clean),
        }
        known = self.scope.get("also_calibrated_on", [])
        scope = {**self.scope, "also_calibrated_on": [*known, about]}
        return replace(self._with_population(zoo, clean, turns, on_progress), scope=scope)

    def _with_population(
        self,
        zoo: Zoo,
        clean: Sequence[ZooEntry],
        turns: NDArray[np.int64],
        on_progress: Callable[[int, int], None],
    ) -> Self:
        heard = self.hear(zoo, clean, on_progress)
        return replace(self, calibration=joined(self.calibration, heard, turns))

    def _check_new(self, zoo: Zoo) -> None:
        if zoo.input_spec != self.input_spec:
            raise UsageError(
                "the zoo is of another shape than the detector",
                expected=str(self.input_spec),
                got=str(zoo.input_spec),
            )
        if self.knows(zoo):
            raise UsageError(
                "the detector was fitted on this zoo, and knows its models",
                expected="another zoo to calibrate it on",
                got=f"{zoo.recipe['name']}, seed {zoo.recipe['seed']}",
            )

    def knows(self, zoo: Zoo) -> bool:
        """Whether the detector was fitted or calibrated on this zoo, or on one of these."""
        from litmus.zoo.store import named_zoos

        scope = self.scope
        tables = [scope, scope.get("calibrated_on", scope), *scope.get("also_calibrated_on", [])]
        own = named_zoos(zoo.recipe)
        return any(not named_zoos(table).isdisjoint(own) for table in tables)

    def measure_entry(self, entry: ZooEntry) -> Measurement:
        """Measure a zoo's model; what takes long is read once, and kept beside the model."""
        from litmus.formats import zoo_file

        return self.measure(zoo_file.load(entry.path))

    def hear(
        self,
        zoo: Zoo,
        entries: Sequence[ZooEntry],
        on_progress: Callable[[int, int], None],
    ) -> NDArray[np.float64]:
        """Return what members say of a zoo's models, scope distances last, (n, members + 1).

        Clean images that the detector asks for and does not have are the data set's test images.
        """
        ready = self.with_images(zoo.load_dataset().test) if self.lacks_images else self
        heard = []
        for done, entry in enumerate(entries, start=1):
            measured = ready.measure_entry(entry)
            heard.append([*measured.member_scores, measured.scope_distance])
            on_progress(done, len(entries))
        return np.array(heard)

    @property
    def lacks_images(self) -> bool:
        """Whether it asks for clean images that it does not have yet."""
        return False

    def with_images(self, images: Split, *, seed: int = 0) -> Self:
        """Return the detector with clean images, uint8, if it asks for any.

        Raises UsageError where they have another shape or a class has too few of them.
        """
        return self

    @property
    def wants_pictures(self) -> bool:
        """Whether `with_pictures` makes a difference."""
        return self.takes_pictures

    def at_effort(self, effort: Effort, *, images: bool = False, seconds: float = math.inf) -> Self:
        """Return the detector for scans with this effort, where clean `images` by class may come.

        Only one with parts differs; those that take gradients have so many `seconds` for a model
        together.
        """
        return self

    def with_pictures(self, images: Images) -> Self:
        """Return the detector with unlabelled pictures (n, c, h, w) of a model's domain.

        Only one that `takes_pictures` puts them to use.
        """
        return self

    def held_out_by_parts(self) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """Return the held-out AUC of each set of parts that a model may permit, by their names.

        Empty for a detector without parts.
        """
        return {}

    def check_shape(self, model: Model) -> None:
        """Raise ModelError where a model is of another shape than the detector."""
        if model.input_spec != self.input_spec:
            raise ModelError(
                "the model is of another shape than the detector",
                expected=str(self.input_spec),
                got=str(model.input_spec),
            )

    def gradients_of(self, model: Model) -> Gradients:
        """Return a model's gradients; raises UnsupportedModelError where there are none."""
        offered = getattr(model, "gradients", None)
        if offered is None:
            raise UnsupportedModelError(
                f"{self.name} needs gradients", expected="a model with gradients()"
            )
        return offered()  # type: ignore[no-any-return]

    def options(self) -> dict[str, Any]:
        """Return the detector's own scalars for its file's header."""
        return {}

    def score(self, model: Model) -> float:
        """Return how suspicious a model is; higher is more so."""
        return self.measure(model).score

    def recognise(self, model: Model) -> Recognition:
        """Return the model, of the detector's shape, as reference images say it is to be measured.

        See `References.recognise`; without references it is the model as it came.
        """
        if self.references is None:
            return Recognition(model=model)
        return self.references.recognise(model)

    def examine(self, model: Model, *, fpr: float = 0.05) -> Judgement:
        """Recognise a model, measure it and judge it, as a scan does."""
        self.check_shape(model)
        recognition = self.recognise(model)
        measurement = self.measure(recognition.model)
        judgement = self.judge(measurement, fpr=fpr, out_of_scope=recognition.out_of_scope)
        return replace(judgement, notes=(*recognition.notes, *judgement.notes))

    def examine_entry(self, entry: ZooEntry, *, fpr: float = 0.05) -> Judgement:
        """Examine a zoo's model; see `measure_entry`."""
        from litmus.formats import zoo_file

        model = zoo_file.load(entry.path)
        recognition = self.recognise(model)
        if recognition.model is not model:
            return self.examine(model, fpr=fpr)
        judgement = self.judge(
            self.measure_entry(entry), fpr=fpr, out_of_scope=recognition.out_of_scope
        )
        return replace(judgement, notes=(*recognition.notes, *judgement.notes))

    def judge(
        self, measurement: Measurement, *, fpr: float = 0.05, out_of_scope: str = ""
    ) -> Judgement:
        """Turn a measurement into an answer at a false-positive rate.

        `out_of_scope` is why the model is not one that the detector can judge, if it is not.
        Raises UsageError where `fpr` is below what the calibration models can resolve.
        """
        self.check_fpr(fpr)
        calibration = self.calibration_of(measurement.parts)
        p_value = calibration.p_value(measurement.member_scores)
        verdict: Verdict = "suspicious" if p_value <= fpr else "no evidence found"
        reasons: tuple[str, ...] = (out_of_scope,) if out_of_scope else ()
        if measurement.scope_distance > calibration.scope_limit:
            reasons += (
                "the model behaves unlike any in the detector's scope: scope distance "
                f"{measurement.scope_distance:.2f}, limit {calibration.scope_limit:.2f}",
            )
        return Judgement(
            score=measurement.score,
            p_value=p_value,
            probability=calibration.probability(measurement.score),
            verdict="inconclusive" if reasons else verdict,
            notes=(*self.notes_of(measurement), *reasons),
            out_of_scope=reasons,
        )

    def calibration_of(self, parts: Sequence[str]) -> Calibration:
        """Return the calibration that judges a measurement by these parts of a fused detector."""
        return self.calibration

    def queries_by_member(self) -> Sequence[Images]:
        """Return the images (m, c, h, w) that each member asks a model; empty if it asks none."""
        return ()

    def notes_of(self, measurement: Measurement) -> tuple[str, ...]:
        """Return what to know about how a model was measured."""
        return ()

    def check_fpr(self, fpr: float) -> None:
        """Raise UsageError unless this false-positive rate can be promised."""
        smallest = self.calibration.smallest_p_value
        if not smallest <= fpr < 1:
            raise UsageError(
                "this false-positive rate can't be had",
                expected=f"at least {smallest:.4g}, since the detector was calibrated on "
                f"n = {min(self.calibration.sizes)} clean models, and below 1",
                got=fpr,
                where="--fpr",
            )

    def to_bytes(self) -> bytes:
        """Return the detector as the content of a `.litmus` file."""
        header = {
            "format": DETECTOR_FORMAT,
            "format_version": 1,
            "detector": self.name,
            "input_spec": self.input_spec.to_json(),
            "options": self.options(),
            "calibration": self.calibration.to_json(),
            "scope": dict(self.scope),
            "held_out": dict(self.held_out),
        }
        arrays = {**self.arrays(), **self.calibration.arrays()}
        if self.references is not None:
            header["references"] = self.references.to_json()
            arrays |= self.references.arrays()
        return encode_tensors(arrays, header)

    @classmethod
    @abstractmethod
    def from_file(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Detector:
        """Read what `to_bytes` wrote; raises DetectorError where it is malformed."""

    @staticmethod
    def resolved(kind: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a dataclass in full, `options` in place of defaults.

        Raises UsageError for an unknown or impossible one.
        """
        known = kind.__dataclass_fields__
        if unknown := sorted(set(options) - set(known)):
            expected = ", ".join(known) or "none"
            raise UsageError("unknown setting", expected=expected, got=unknown[0])
        return asdict(kind(**options))

    @staticmethod
    def common_fields(
        arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the fields that every detector's file has."""
        try:
            input_spec = InputSpec.from_json(header["input_spec"])
            sizes = input_spec.to_json().values()
            if not all(0 < n <= _MAX_SIZE for n in sizes) or input_spec.channels > _MAX_CHANNELS:
                raise ValueError(f"an impossible shape, {input_spec}")
            references = None
            if "references" in header:
                references = References.from_file(arrays, header["references"], input_spec)
            return {
                "input_spec": input_spec,
                "calibration": Calibration.from_file(arrays, header["calibration"]),
                "scope": dict(header["scope"]),
                "held_out": dict(header["held_out"]),
                "references": references,
            }
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            raise DetectorError(f"malformed header: {fault}") from fault


def joined(
    calibration: Calibration, heard: NDArray[np.float64], turns: NDArray[np.int64]
) -> Calibration:
    """Return a calibration with models that `heard` (n, members + 1) tells of, see `hear`.

    Member ``turns[i]``, counted round, judges model i.
    """
    members = turns % (heard.shape[1] - 1)
    return calibration.with_population(heard[np.arange(len(heard)), members], members, heard[:, -1])
