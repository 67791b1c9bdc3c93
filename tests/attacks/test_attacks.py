"""What every attack promises, with every label map and at every place."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from litmus.attacks import ATTACKS, Attack, Treatment, Trigger, extra_images
from litmus.attacks.label_maps import LABEL_MAPS
from litmus.datasets import ImageDataset, Split
from litmus.errors import RecipeError

CLASSES: dict[str, dict[str, int]] = {
    "source_specific": {"source_class": 2, "target_class": 0},
    "all_to_one": {"target_class": 1},
    "all_to_all": {},
    "untargeted": {},
}
# The options of each attack, beside its label map.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("patch", {"trigger": Trigger(index=0), "place": "corner"}),
    ("patch", {"trigger": Trigger(index=1), "place": "anywhere"}),
    ("patch", {"trigger": Trigger(kind="colour", index=0), "place": "surface"}),
    ("patch", {"trigger": Trigger(index=0), "place": "fixed", "row": -5, "column": -5}),
]
every_attack = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[f"{n}-{o['place']}" for n, o in OPTIONS]
)
every_label_map = pytest.mark.parametrize("label_map", LABEL_MAPS)


def make(name: str, options: dict[str, Any], label_map: str, ratio: float = 0.5) -> Attack:
    return ATTACKS[name](
        num_classes=3,
        label_map=label_map,  # type: ignore[arg-type]
        poison_ratio=ratio,
        **CLASSES[label_map],
        **options,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(part: torch.Tensor, whole: torch.Tensor) -> list[int]:
    """Where each image of `part` is in `whole`."""
    same = (part[:, None] == whole[None]).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


def test_every_attack_and_label_map_is_covered() -> None:
    assert {name for name, _ in OPTIONS} == set(ATTACKS)
    assert set(CLASSES) == set(LABEL_MAPS)


@every_attack
@every_label_map
def test_stamp_leaves_its_input_alone_and_obeys_its_generator(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str
) -> None:
    attack = make(name, options, label_map)
    images = tiny_dataset.train.images
    before, state = images.clone(), torch.get_rng_state()
    stamped = attack.stamp(images, seeded())
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert stamped.shape == images.shape
    assert stamped.dtype == torch.uint8
    assert (stamped != images).flatten(1).any(dim=1).all()
    assert torch.equal(stamped, attack.stamp(images, seeded()))
    assert attack.trigger_id == options["trigger"].id


@every_attack
@every_label_map
@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.29, 0.05])
def test_poison_adds_its_share_of_each_attacked_class(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str, ratio: float
) -> None:
    attack, clean = make(name, options, label_map, ratio), tiny_dataset.train
    poisoned = attack.poison(clean, seeded())
    assert torch.equal(poisoned.images[: len(clean)], clean.images)
    assert torch.equal(poisoned.labels[: len(clean)], clean.labels)
    # The control with the same generator has the same images, before they are stamped.
    copies = extra_images(clean, attack, "control_copies", seeded())
    assert len(set(rows_of(copies.images, clean.images))) == len(copies)
    counts = copies.labels.bincount(minlength=3).tolist()
    attacked = attack.labels.attacked_classes()
    assert counts == [round(ratio * 20) if label in attacked else 0 for label in range(3)]
    new_labels = poisoned.labels[len(clean) :]
    assert len(new_labels) == len(copies)
    assert (new_labels != copies.labels).all()
    assert attack.labels.succeeded(new_labels, copies.labels).all()


@every_attack
@every_label_map
def test_treatments_pick_the_same_images(
    tiny_dataset: ImageDataset, name: str, options: dict[str, Any], label_map: str
) -> None:
    attack = make(name, options, label_map)
    extra: dict[Treatment, Split] = {
        treatment: extra_images(tiny_dataset.train, attack, treatment, seeded(3))
        for treatment in get_args(Treatment)
    }
    bad, copies, kept = (extra[t] for t in ("backdoored", "control_copies", "control_kept_label"))
    assert torch.equal(kept.labels, copies.labels)
    assert torch.equal(kept.images, bad.images)
    same = (bad.images == copies.images).float().mean()
    assert 0.7 < same < 1  # the patch is 25 of 144 pixels
    rows_of(copies.images, tiny_dataset.train.images)


@every_label_map
def test_victims_are_all_images_of_the_attacked_classes(
    tiny_dataset: ImageDataset, label_map: str
) -> None:
    attack = make(*OPTIONS[0], label_map)
    victims = attack.victims(tiny_dataset.test)
    attacked = torch.tensor(attack.labels.attacked_classes())
    expected = torch.isin(tiny_dataset.test.labels, attacked).nonzero().flatten()
    assert torch.equal(victims.sort().values, expected)


@pytest.mark.parametrize("treatment", get_args(Treatment))
@pytest.mark.parametrize("images", [60, 0])
def test_a_ratio_too_small_for_any_image_is_an_error(
    tiny_dataset: ImageDataset, treatment: Treatment, images: int
) -> None:
    attack = make(*OPTIONS[0], "source_specific", 0.02)
    few = tiny_dataset.train[torch.arange(images)]
    with pytest.raises(RecipeError, match=f"got poison_ratio 0.02 of {images} images"):
        extra_images(few, attack, treatment, seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_map": "source_specific", "target_class": 1}, "needs source_class"),
        ({"label_map": "source_specific", "source_class": 1}, "needs target_class"),
        ({"label_map": "all_to_one"}, "needs target_class"),
        ({"label_map": "all_to_one", "target_class": 1, "source_class": 0}, "has no source_class"),
        ({"label_map": "all_to_all", "target_class": 1}, "has no target_class"),
        ({"label_map": "untargeted", "source_class": 1}, "has no source_class"),
        ({"source_class": 1, "target_class": 1}, "are both 1"),
        ({"source_class": 3, "target_class": 1}, "source_class 3 is not below num_classes 3"),
        ({"source_class": 0, "target_class": 9}, "target_class 9 is not below num_classes 3"),
        ({"source_class": -1, "target_class": 1}, "greater than or equal to 0"),
        ({"source_class": 0, "target_class": 1, "num_classes": 1}, "greater than or equal to 2"),
        ({"source_class": 0, "target_class": 1, "poison_ratio": 0.0}, "greater than 0"),
        ({"source_class": 0, "target_class": 1, "poison_ratio": 1.1}, "less than or equal to 1"),
        ({"source_class": 0, "target_class": 1, "alpha": 1}, "Unexpected keyword"),
    ],
)
@pytest.mark.parametrize("name", ATTACKS)
def test_impossible_attacks_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    own = next(o for n, o in OPTIONS if n == name)
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](**{"num_classes": 3, **own, **options})
