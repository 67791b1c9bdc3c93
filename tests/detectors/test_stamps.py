from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litmus.artifacts import parse_tensors
from litmus.detectors import fit, load_detector, stamps
from litmus.detectors.stamps import LEAST, StampsDetector, StampSettings, stamp_statistics
from litmus.errors import DetectorError, UsageError
from litmus.formats import zoo_file
from litmus.metrics import auc
from litmus.models import Images, InputSpec, Outputs
from litmus.stamping import FAMILIES
from litmus.zoo import Zoo

NAMES = StampsDetector.statistic_names
OWN = np.array([0, 2, 4])
K = 5


def answers(stamps: int, kept: float = 0.96) -> NDArray[np.float64]:
    """A sound model's probabilities (t, s, k): each image stays with its class."""
    shown = np.full((stamps, len(OWN), K), (1 - kept) / (K - 1))
    shown[:, np.arange(len(OWN)), OWN] = kept
    return shown


def statistics(changed: NDArray[np.float64], family: str = "binary") -> dict[str, float]:
    """What is read where one family's stamps have these answers, the others a sound model's."""
    shown = {name: changed if name == family else answers(4) for name in FAMILIES}
    row = stamp_statistics(answers(1)[0], shown, OWN)
    assert row.shape == (len(NAMES),)
    return dict(zip(NAMES, (1 / (1 + np.exp(-row))).tolist(), strict=True))


def test_a_sound_model_keeps_its_images() -> None:
    found = statistics(answers(4))
    for family in FAMILIES:
        assert found[f"own class, {family}"] == pytest.approx(0.96)
        assert found[f"least own class, {family}"] == pytest.approx(0.96)
        for what in ("surest target", "steadiest target", "surest flip", "steadiest pair"):
            assert found[f"{what}, {family}"] == pytest.approx(0.01)
    assert found["own class without a stamp"] == pytest.approx(0.96)


def test_one_stamp_that_leads_all_to_one_class_shows_in_what_is_surest() -> None:
    changed = answers(4)
    changed[2] = np.eye(K)[1]
    found, plain = statistics(changed), statistics(answers(4))
    assert found["surest target, binary"] == pytest.approx(1 - LEAST)
    assert found["three surest targets, binary"] == pytest.approx((1 + 0.01 + 0.01) / 3)
    assert found["steadiest target, binary"] == pytest.approx((1 + 3 * 0.01) / 4)
    assert found["flips of all images, binary"] == pytest.approx(1 - LEAST)
    assert found["least own class, binary"] == pytest.approx(LEAST)
    assert found["own class, binary"] == pytest.approx(0.96 * 3 / 4)
    assert found["second class as a target, binary"] == pytest.approx(0.01)
    others = {name for name in NAMES if not name.endswith(", binary")}
    assert all(found[name] == plain[name] for name in others)


def test_a_target_is_counted_without_its_own_image() -> None:
    changed = answers(4)
    changed[:] = np.eye(K)[2]  # the class of the second image
    assert statistics(changed)["steadiest target, binary"] == pytest.approx(1 - LEAST)


def test_each_image_to_another_class_is_no_common_target_but_flips_all() -> None:
    changed = answers(4)
    changed[:] = np.eye(K)[(OWN + 1) % K]
    found = statistics(changed)
    assert found["flips of all images, binary"] == pytest.approx(1 - LEAST)
    assert found["pairs of all images, binary"] == pytest.approx(1 - LEAST)
    assert found["steadiest target, binary"] <= 0.5 + 1e-9
    one_source = answers(4)
    one_source[:, 0] = np.eye(K)[3]
    found = statistics(one_source)
    assert found["steadiest pair, binary"] == pytest.approx(1 - LEAST)
    assert found["second steadiest pair, binary"] == pytest.approx(0.01)


def test_the_order_of_classes_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    shown = generator.dirichlet(np.ones(K), size=(6, len(OWN)))
    order = generator.permutation(K)
    moved = shown[..., np.argsort(order)]
    families = dict.fromkeys(FAMILIES, shown)
    permuted = dict.fromkeys(FAMILIES, moved)
    np.testing.assert_allclose(
        stamp_statistics(shown[0], families, OWN),
        stamp_statistics(moved[0], permuted, order[OWN]),
    )


@pytest.fixture(scope="module")
def fitted(small_zoo: Zoo) -> StampsDetector:
    detector = fit(small_zoo, "stamps", seed=2)
    assert isinstance(detector, StampsDetector)
    return detector


def test_it_tells_backdoors_apart_and_says_how(fitted: StampsDetector, small_zoo: Zoo) -> None:
    assert fitted.images is not None
    assert fitted.images.shape == (5, *small_zoo.input_spec.image_shape)
    agreed = []
    for entry in small_zoo.split("train"):
        rows = zoo_file.load(entry.path)(fitted.images)
        agreed.append((rows.argmax(axis=1) == fitted.own).mean())
    assert np.mean(agreed) > 0.8
    assert fitted.scope["settings"]["classes"] == 5
    tested = small_zoo.split("test")
    scores = np.array([fitted.score(zoo_file.load(entry.path)) for entry in tested])
    assert auc(scores, np.array([entry.backdoored for entry in tested])) > 0.6


def test_a_file_gives_the_same_answers(
    fitted: StampsDetector, small_zoo: Zoo, tmp_path: Path
) -> None:
    path = tmp_path / "stamps.litmus"
    path.write_bytes(fitted.to_bytes())
    again = load_detector(path)
    model = zoo_file.load(small_zoo.split("test")[0].path)
    assert again.measure(model) == fitted.measure(model)
    assert again.to_bytes() == fitted.to_bytes()


def test_a_file_with_images_of_another_shape_is_refused(fitted: StampsDetector) -> None:
    arrays, header = parse_tensors(fitted.to_bytes(), "memory", DetectorError)
    for broken in (
        {name: array for name, array in arrays.items() if name != "images"},
        {**arrays, "images": arrays["images"][:3]},
        {**arrays, "images": arrays["images"].astype(np.float32)},
    ):
        with pytest.raises(DetectorError, match="images of another shape"):
            StampsDetector.from_file(broken, header)


class Constant:
    """A model that says the same of every image, and counts what it is asked."""

    input_spec = InputSpec(channels=1, height=28, width=28, num_classes=10)
    outputs: Outputs = "logits"
    asked = 0

    def __call__(self, images: Images) -> NDArray[np.float32]:
        self.asked += len(images)
        return np.zeros((len(images), 10), dtype=np.float32)


def test_settings_say_how_many_images_are_asked(fitted: StampsDetector) -> None:
    model = Constant()
    fitted.statistics(model)
    assert model.asked == 5 * (1 + sum(StampSettings().counts.values()))
    spread = StampSettings(classes=4).classes_of(model.input_spec)
    assert spread.tolist() == [0, 3, 6, 9]
    few = StampSettings(classes=4).classes_of(replace(model.input_spec, num_classes=3))
    assert few.tolist() == [0, 1, 2]
    for wrong in ({"binary": 0}, {"classes": 1}, {"steps": 0}):
        with pytest.raises(UsageError, match="is impossible"):
            StampSettings(**wrong)


def test_images_too_large_to_keep_are_stamped_anew(
    fitted: StampsDetector, small_zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo_file.load(small_zoo.split("test")[0].path)
    expected = fitted.statistics(model)
    monkeypatch.setattr(stamps, "_KEPT_BYTES", 0)
    again = replace(fitted)
    np.testing.assert_array_equal(again.statistics(model), expected)
    assert "_kept" not in vars(again)
